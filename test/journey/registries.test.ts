import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");
const registry = (name: string): string => `src/registry/${name}.test.ts`;
const credential = (name: string): string => `src/credential/${name}.test.ts`;
const journey = (name: string): string => `test/journey/${name}.test.ts`;

/** What registries do, and the tests that show that we take it well: a file and a title that is in it. */
type Row = readonly [fact: string, ...tests: (readonly [file: string, title: string])[]];

/** The protocol, sentence by sentence. */
const protocol: readonly Row[] = [
  [
    "challenges are parsed as RFC 7235 says, several of them joined by commas",
    [registry("challenge"), "parses %p"],
    [registry("challenge"), "ends in bounded time on any text"],
    [registry("protocol"), "in several fields are one list, of which the one with tokens is taken"],
  ],
  [
    "the challenged scope goes first: some registries read one",
    [registry("session"), "asks with the challenged scope first, its service, and basic credentials"],
    [
      journey("registry-rows"),
      "Quay: a robot org+name pulls through 302 and CloudFront's signatures, one scope at a time",
    ],
  ],
  [
    "GET repeats scope=, POST sends one joined by spaces, and a 404 on POST means GET",
    [registry("session"), "posts a refresh token, and asks by GET where POST is not there"],
    [registry("protocol"), "scopes go one by one in a GET, and joined by a space in a POST"],
  ],
  [
    "token or access_token",
    [registry("session"), "renews a token at half of the life that %s gives"],
    [
      journey("registry-rows"),
      "Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization",
    ],
  ],
  [
    "no expires_in means 60 s",
    [registry("session"), "renews a token at half of the life that %s gives"],
    [
      journey("registry-rows"),
      "GHCR: a token without expires_in is renewed, and a redirect that is over is asked for once more",
    ],
  ],
  [
    "fewer scopes than asked for are answered with 200: a token proves nothing",
    [registry("client"), "tells a wrong password from an account without the right to pull"],
    [registry("mint"), "never hands out a token that grants less than was asked for"],
    [journey("wrong-credential"), "for a credential that may not pull from this repository"],
  ],
  [
    "refresh tokens come only when they are asked for, and spare the password",
    [
      registry("exchange"),
      "is asked for at the second exchange, and sent in place of the password from then on",
    ],
    [registry("exchange"), "that is refused is given up for the password, in the same request"],
  ],
  [
    "tokens are kept by credential version, host and scope",
    [registry("protocol"), "are kept apart by the credential's version, and by the repository"],
    [registry("authorization"), "stays apart for two credentials of one registry"],
    [registry("client"), "exchanges the credential once for many requests"],
  ],
  [
    "one exchange in flight for all who wait",
    [registry("mint"), "asks nobody until half of its life is over, then once for all who wait"],
  ],
  [
    "renewed at half of the life",
    [registry("session"), "renews a token at half of the life that %s gives"],
    [
      journey("registry-rows"),
      "a container that reads for three lives of its tokens is never refused, and asks for few",
    ],
  ],
  [
    "the old token serves until its end when the provider fails",
    [registry("session"), "keeps the old token while the token service is away, until its end"],
    [credential("ecr"), "keeps the old token while AWS is away, until its end"],
    [registry("mint"), "keeps the last one while the registry is away, until its end"],
    [registry("clouds"), "from %s: none fails, and tokens are asked for by the hour"],
  ],
  [
    "a 401 renews once, and then is remembered for a short while",
    [registry("session"), "makes a new token, once, when the registry refuses the one that was kept"],
    [registry("client"), "does not send a wrong password again for a while"],
  ],
  [
    "redirects are followed by hand; Authorization and every header of ours stay at home",
    [
      registry("redirect"),
      "go to another host without Authorization, and are remembered until their signature ends",
    ],
    [
      journey("registry-rows"),
      "Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization",
    ],
  ],
  [
    "a redirect is kept as long as it is good, and asked for once more on 403 and 410",
    [registry("redirect-expiry"), "%s is good for so long"],
    [registry("redirect"), "are resolved anew, once, when the store answers %p"],
    [
      journey("registry-store"),
      "docker-registry with htpasswd and an S3 store: redirects are followed without the password, and asked for again when they are over",
    ],
  ],
  [
    "HEAD on a presigned GET is refused by some: blobs are sized by their descriptors",
    [
      journey("registry-store"),
      "docker-registry with tokens and an S3 store: the token stays at the registry, and the redirect is asked for again with it",
    ],
    [registry("protocol"), "is sized by its descriptor: one GET reads it, and no HEAD is sent for it"],
    [registry("blob"), "of %p bytes instead of 200000 are %s"],
  ],
  ["206 and the exact Content-Range", [registry("blob"), "a 206 with Content-Range %p is refused"]],
  [
    "a 200 to a range means one whole stream, resumed and verified",
    [registry("blob"), "a 200 to a ranged request is range_unsupported, and the body is not read"],
    [registry("blob"), "go on without ranges by passing over what was had"],
    ["src/mount/registry-odd.test.ts", "is read as one stream, which goes on after a break"],
  ],
  [
    "a body in flight outlives its token; what is missing after a break is asked for with the next",
    [
      registry("protocol"),
      "whose token ends while it comes and whose connection then falls silent goes on with the rest and a new token",
    ],
  ],
  [
    "a break asks for the remaining range only",
    [registry("blob"), "a short body, and one that breaks off, go on where they stopped"],
  ],
  [
    "408, 429, 5xx and broken connections are tried again, with capped and jittered pauses",
    [registry("egress"), "by breaking connections, 408, 429 and 5xx is asked again"],
    [registry("retry"), "pauses longer each time, within bounds, half of it by chance"],
  ],
  [
    "Retry-After is seconds, a date, or a Unix time",
    [registry("retry"), "%p"],
    [registry("retry"), "waits as long as the registry asks, and gives up at once when that is too long"],
  ],
  [
    "one breaker for each host",
    [registry("egress"), "again and again is asked by one at a time, and by all when it works again"],
  ],
  [
    "bodies of token services are capped at 64 KiB",
    [registry("session"), "of a token service that answers %s fails by name"],
  ],
  [
    "manifests of all four types, by platform",
    [registry("resolve"), "asks for all four kinds, once"],
    [registry("client"), "picks the platform from an index, and names what there is when it lacks one"],
  ],
  [
    "schema 1 and foreign urls are refused",
    [registry("resolve"), "refuses schema 1 with a hint"],
    [registry("manifest"), "with %s is refused"],
  ],
  [
    "digest and size of everything are verified",
    [registry("resolve"), "refuses a manifest that is not what its index, or its header, says"],
    [registry("resolve"), "refuses a configuration that is corrupt, or for another machine"],
    [registry("blob"), "with another content than the digest's fail at the end"],
    [journey("trouble"), "whose image's bytes come damaged reads an error, never wrong bytes, and says why"],
  ],
  [
    "layers: tar, gzip of several members, zstd of several frames with skippable ones, eStargz, zstd:chunked",
    [
      "src/index/layer-index.test.ts",
      "passes over empty members, zero padding and garbage behind a gzip layer",
    ],
    [
      "src/index/layer-index.test.ts",
      "passes over skippable frames before, between and behind; the last span does not fetch them",
    ],
    ["src/index/layer-index.test.ts", "cuts a layer that is a plain tar into pieces"],
    [
      journey("formats"),
      "of an image that is said to be zstd:chunked and has a name that its table cannot hold",
    ],
    ["src/index/chunk-table-image.test.ts", "a registry without ranges gives the layer as a whole"],
  ],
];

/** Each registry, with its credential, the life of its tokens and its quirk. */
const registries: readonly Row[] = [
  [
    "Amazon ECR",
    [
      journey("registry-rows"),
      "Amazon ECR: a password of twelve hours ends with a 403 without a challenge, and the next is used",
    ],
    [
      journey("registry-rows"),
      "Amazon ECR: a role is assumed under the external id that is the workspace's own",
    ],
    [
      journey("registry-rows"),
      "Amazon ECR: registries of China, of FIPS and of both Internets are asked with a password of their own API",
    ],
    [journey("registry-rows"), "Amazon ECR: a host that only looks like it gets no keys"],
    [credential("ecr-host"), "%p is none"],
    [journey("wrong-credential"), "for a password of ECR that is over as soon as it is made"],
  ],
  [
    "Amazon ECR Public",
    [
      journey("registry-rows"),
      "Amazon ECR Public: the 400 of what is over is understood, and the next is used",
    ],
    [registry("refusal"), "has a password that has ended made anew, once, for the 400 that it answers"],
  ],
  [
    "Google Container Registry and Artifact Registry",
    [
      journey("registry-rows"),
      "Container Registry: an access token serves where the challenge names no service",
    ],
    [
      journey("registry-rows"),
      "Artifact Registry: a service account's key makes access tokens, one after the other",
    ],
    [
      journey("registry-rows"),
      "Artifact Registry: _json_key and _json_key_base64 are user names, whose password is a key file",
    ],
  ],
  [
    "Azure Container Registry",
    [
      journey("registry-rows"),
      "Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization",
    ],
  ],
  [
    "Docker Hub",
    [
      journey("registry-rows"),
      "Docker Hub: manifests are asked for by HEAD, tokens of five minutes are renewed at auth.docker.io",
    ],
    [journey("registry-rows"), "Docker Hub: its host names are one registry with one secret"],
    [registry("hub"), "says how many pulls are left, in which window, and whose they are"],
    [registry("hub"), "that gives no more pulls is told with its limit and its window"],
    [
      registry("hub"),
      "never sees the fifth failed login, however often wrong builds are tried within ten minutes",
    ],
    [journey("wrong-credential"), "and a loop of wrong builds never gets there, nor do ten at once"],
    [
      journey("registry-changed"),
      "containers whose password was changed are refused by name, read on what they have, and lock no account",
    ],
  ],
  [
    "GHCR",
    [
      journey("registry-rows"),
      "GHCR: a token without expires_in is renewed, and a redirect that is over is asked for once more",
    ],
    [journey("registry-rows"), "GHCR: the account's token in base64 is a bearer token as it is"],
  ],
  [
    "GitLab",
    [journey("registry-rows"), "GitLab: the deploy token goes to gitlab.com and never to the registry"],
  ],
  [
    "NGC",
    [
      journey("registry-rows"),
      "NGC: the key goes to the realm on nvcr.io, and to authn.nvidia.com once that is the realm",
    ],
    [registry("realm-move"), "is asked for at the registry when the old place answers %p"],
  ],
  [
    "Quay",
    [
      journey("registry-rows"),
      "Quay: a robot org+name pulls through 302 and CloudFront's signatures, one scope at a time",
    ],
  ],
  [
    "Harbor",
    [journey("registry-rows"), "Harbor: a robot$ pulls, with tokens of thirty minutes"],
    [
      journey("wrong-credential"),
      "for a robot of Harbor that is over, though its login is taken: the repository says so",
    ],
  ],
  [
    "distribution",
    [
      journey("registry-store"),
      "docker-registry with htpasswd and an S3 store: redirects are followed without the password, and asked for again when they are over",
    ],
    [
      journey("registry-store"),
      "docker-registry with tokens and an S3 store: the token stays at the registry, and the redirect is asked for again with it",
    ],
    [journey("rotation"), "is used by the very next run once the secret is updated"],
  ],
];

/** What a credential may be, and how registries and secrets are named. */
const credentials: readonly Row[] = [
  [
    "the keys of the clouds' tools and those of the field become the type that fits the registry",
    [credential("credential"), "for %s with %p is %s"],
    [credential("credential"), "%s does not get %p"],
  ],
  [
    "one key of a pair is an error that names the other",
    [credential("credential"), "one half for %s (%p) names the other"],
    [journey("refusal"), "a pair with one half missing"],
  ],
  [
    "Docker's names are one registry; docker:// and oci:// are taken; localhost, ports and [::1] name registries",
    ["src/reference/reference.test.ts", "%s is in %s"],
    [journey("registry-rows"), "Docker Hub: its host names are one registry with one secret"],
  ],
  [
    "secrets are named after the registry; a name that is taken gets a suffix of host and principal",
    [credential("credential"), "of %s is %s"],
    [credential("credential"), "a taken name gets a suffix, always the same for the same principal"],
    [
      journey("rotation"),
      "come by standard input, and two accounts of one registry do not overwrite each other",
    ],
  ],
];

/** What stands in for the clouds in these tests, and behaves as badly. */
const substitutes: readonly Row[] = [
  [
    "docker-registry with htpasswd, with tokens, and with an S3 store",
    [
      journey("registry-store"),
      "docker-registry with htpasswd and an S3 store: redirects are followed without the password, and asked for again when they are over",
    ],
    [journey("rotation"), "is used by the very next run once the secret is updated"],
  ],
  [
    "moto's ECR, whose tokens are given a life",
    ["test/kit/moto.test.ts", "moto gives tokens of ECR that live as long as the test says, each another"],
  ],
  [
    "stores that refuse HEAD and a second authorization, which moto's S3 takes",
    [
      "test/kit/quirk.test.ts",
      "gives what was signed, and refuses HEAD, a second authorization, strange headers and what is over",
    ],
    ["test/kit/quirk.test.ts", "that is moto's S3 refuses the same of what is signed in the URL"],
  ],
  [
    "Google's token services and metadata server, asked through our own door whatever a key file names",
    [credential("google"), "is asked for at Google's one place, whatever the file names"],
    [registry("clouds"), "from %s: none fails, and tokens are asked for by the hour"],
  ],
];

const tables = { protocol, registries, credentials, substitutes };

/** The titles of a file's tests: what stands before the function of each. */
function titlesIn(file: string): ReadonlySet<string> {
  const text = readFileSync(join(root, file), "utf8");
  return new Set([...text.matchAll(/(["'`])([^\n]+?)\1,\s*(?:async\s*)?\(/g)].map((match) => match[2] ?? ""));
}

for (const [name, rows] of Object.entries(tables)) {
  test(`every row of the ${name} has tests, and they are there`, () => {
    const missing = rows.flatMap(([fact, ...tests]) => {
      const gone = tests.filter(
        ([file, title]) => !existsSync(join(root, file)) || !titlesIn(file).has(title),
      );
      if (tests.length === 0) return [`${fact}: no test`];
      return gone.map(([file, title]) => `${fact}: ${file} has no test "${title}"`);
    });
    console.log(
      `${name}: ${rows.length - new Set(missing.map((line) => line.split(": ")[0])).size}/${rows.length} rows`,
    );
    expect(missing).toEqual([]);
  });
}
