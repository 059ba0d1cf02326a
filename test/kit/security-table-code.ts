import type { Attack } from "./security-table.ts";

/** What comes with uploaded code, and with values that containers are given. */
export const codeAttacks: readonly Attack[] = [
  {
    attack: "an archive of uploaded code is made to break out, to mislead, or to fill memory and disk",
    defences: [
      [
        "files, directories and links that stay inside, of few bytes and entries, are made where nobody else is",
        "src/runtime/code/archive.test.ts: %s",
        "src/runtime/code/archive.test.ts: more than it may, by its contents, its headers or its links, before that is written",
        "src/runtime/code/archive.test.ts: an archive becomes files, directories and links, readable by all, whatever its modes and its pieces are",
        "src/runtime/code/handler-code.test.ts: a function of uploaded code runs in the image's own Python, whatever the image's command is, and cannot change the code",
      ],
      [
        "what is broken off, damaged or too much leaves nothing",
        "src/endpoint/code-service.test.ts: that is damaged, hostile, in parts too long, or nothing, leaves nothing and says why",
        "src/endpoint/code-service.test.ts: that is too large is refused before it has all come",
        "src/container/code-store.test.ts: a workspace's archives have a bound: the oldest that are unused make room, else the new one is refused",
      ],
      [
        "a workspace's code is no other's, and a worker has that of its containers alone",
        "src/endpoint/code-service.test.ts: over HTTP/2 and, in JSON, over HTTP/1.1 keeps the archive for its workspace alone",
        "src/endpoint/code-service.test.ts: of a stranger is refused, and nothing of it is kept",
        "src/scheduler/code.test.ts: a worker gets the code of the containers that were placed on it and live, and nobody else's",
        "src/runtime/code/cache.test.ts: code that differs from its digest, or is hostile, is not kept",
      ],
    ],
  },
  {
    attack: "a value that a container is given is had by others, or a container is given a credential",
    defences: [
      [
        "it is sealed to the worker for one hand-over, and opens as nothing else",
        "src/secret/container-secrets.test.ts: what is sealed for a container opens once, for that hand-over, and never as the image's credentials",
        "src/scheduler/attach-secrets.test.ts: secrets are read as they are at each hand-over, sealed for the worker, and each is written down",
        "test/journey/canary-everywhere.test.ts: in any file but those that are there to hold it, which only their owner can read",
      ],
      [
        "credentials and values are two kinds, and what is missing is no empty value",
        "src/secret/container-secrets.test.ts: and a credential never stand for one another",
        "test/journey/rotation.test.ts: is given to the next run as it is then; without it nothing is run, and no credential stands in",
      ],
    ],
  },
];
