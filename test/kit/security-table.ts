import { codeAttacks } from "./security-table-code.ts";
import { reachesOut, takesAll } from "./security-table-container.ts";
import { endpointAttacks } from "./security-table-endpoint.ts";

/** An attack, what stands against it, and the tests that fail without that, as `FILE: TITLE`. */
export interface Attack {
  readonly attack: string;
  readonly defences: readonly (readonly [defence: string, ...tests: string[]])[];
}

export const attacks: readonly Attack[] = [
  {
    attack:
      "a tenant names a registry, realm, redirect or webhook that is inside of the operator's network (SSRF)",
    defences: [
      [
        "one way out: HTTPS, names looked up once, public addresses only, connected to as they were judged",
        "src/registry/hostile.test.ts: gets no connection to a private address",
        "src/registry/hostile.test.ts: has each of its ways end as it must",
        "src/registry/egress.test.ts: looks a name up once, and goes to the address that it judged",
        "test/tidy.test.ts: only the registry room's egress goes out to the network",
        "test/journey/refusal.test.ts: a private address that the operator did not allow",
      ],
      [
        "what is private or in the clear is a list of the operator's",
        "src/registry/hostile.test.ts: is reached where the operator allows it, by the same ways",
        "src/registry/hostile.test.ts: gets nothing through the operator's proxy that it does not get without",
      ],
      [
        "webhooks follow no redirect",
        "src/health/delivery.test.ts: a redirect (%p) is not followed, and is no success",
      ],
    ],
  },
  {
    attack: "a registry names a realm of an attacker's, which then gets the credential",
    defences: [
      [
        "realms are the registry's own, known, or the operator's; they do not redirect",
        "src/registry/hostile.test.ts: gets no byte of a credential at a wrong host",
        "test/journey/registry-rows.test.ts: GitLab: the deploy token goes to gitlab.com and never to the registry",
        "test/journey/registry-rows.test.ts: no secret and no token came to a host that it is not for, and nobody else was asked anything",
      ],
    ],
  },
  {
    attack: "a credential is used at a host that it is not for, or that only looks like it",
    defences: [
      [
        "it is bound to its registry by whole host names, compared before each use",
        "src/credential/ecr-host.test.ts: %p is none",
        "test/journey/registry-rows.test.ts: Amazon ECR: a host that only looks like it gets no keys",
        "src/credential/credential.test.ts: %s does not get %p",
        "test/journey/federation.test.ts: no secret and no token came to a host that it is not for, and every token was believed",
      ],
    ],
  },
  {
    attack: "a redirect or a layer's foreign URL takes the credential elsewhere",
    defences: [
      [
        "no header of ours crosses hosts",
        "src/registry/redirect.test.ts: go to another host without Authorization, and are remembered until their signature ends",
        "src/registry/redirect.test.ts: to %s are refused",
      ],
      ["layers with URLs are refused", "src/registry/manifest.test.ts: with %s is refused"],
    ],
  },
  {
    attack:
      "the node's own environment or identity serves a tenant, or steps in for his credential that failed",
    defences: [
      [
        "nothing writes the environment, and no child gets it",
        "test/tidy.test.ts: nothing writes the environment of the process",
        "test/tidy.test.ts: begin with a clean environment, each one",
        "test/journey/hardening.test.ts: no process that a node or a command starts has anything of their environment",
      ],
      [
        "an identity is the operator's to give, asked at each use",
        "src/role/providers.test.ts: an identity only where the operator lists it, and the refusal tells him what to write",
        "src/credential/identity.test.ts: is refused where the workspace may not use it, at each use and not only when it is saved",
        "test/journey/tenants.test.ts: an identity of the operator's is for the workspace that may name it",
      ],
      [
        "none, anonymous and failed are three things",
        "test/journey/rotation.test.ts: ends the run by name when the secret still has the old one, and nothing else is tried",
        "test/journey/rotation.test.ts: that images use are kept unless forced; a run without goes on and says so",
      ],
    ],
  },
  {
    attack: "a tenant's workload identity JSON has the node read a file or post to a URL",
    defences: [
      [
        "names are taken, files and URLs are not",
        "src/credential/google.test.ts: is refused with %p",
        "src/credential/google.test.ts: refuses the name %p",
        "src/credential/google.test.ts: is asked for at Google's one place, whatever the file names",
      ],
    ],
  },
  {
    attack: "B runs A's private image, which is built, cached or mounted here",
    defences: [
      [
        "each workspace proves its own access before each mount, for the life of a grant",
        "test/journey/strangers.test.ts: is not run by another's reference, digest or id",
        "test/journey/strangers.test.ts: is not built by another without rights of his own, however he names it",
        "src/runtime/image/grants.test.ts: one workspace's grant is no other's, nor another image's, and a rotated credential must prove itself",
      ],
      [
        "a revoked credential starts nothing after its grant's life",
        "test/journey/grants.test.ts: a revoked account starts nothing though its token lives on, and starts again with its rights",
        "test/journey/grants.test.ts: each start asks with the account itself; one that was revoked is refused at once, and so is one that nobody answers",
        "test/journey/strangers.test.ts: is run by another no more when his rights end, though it is cached, mounted, and known by his own row",
      ],
      [
        "nothing is had by the bare digest of a layer",
        "test/journey/stolen-layer.test.ts: is not had by naming its layers from a registry that claims them and has no byte of them",
        "test/journey/stolen-layer.test.ts: is not had while one layer of it is lacking",
        "src/image/layer-proofs.test.ts: is no other's for its digest alone: a registry that lacks the bytes gets no image of it",
      ],
    ],
  },
  {
    attack: "a tenant calls for what is another's, or more than his role may",
    defences: [
      [
        "one table of who may call what, walked as every role",
        "src/rpc/authorization.test.ts: every method of every service stands in the table, and nothing else does",
        "test/journey/authorization.test.ts: every method is on the walk",
        "test/journey/side-doors.test.ts: only what is everybody's is answered without a token, and it names nobody's things",
      ],
      [
        "tokens are hashed, end, and are revoked at once",
        "src/secret/token-store.test.ts: a token speaks for its workspace and role; the database has its hash only",
        "src/secret/token-store.test.ts: an unknown, expired, revoked or misshapen token speaks for nobody",
      ],
    ],
  },
  {
    attack: "somebody has a dump of the database, or writes to it",
    defences: [
      [
        "a key outside of it wraps the workspaces' keys, which wrap a key for each version",
        "src/secret/vault.test.ts: no value and no key is in the files of the database, write-ahead log included",
        "src/secret/vault.test.ts: another key file is named, and opens nothing",
        "src/secret/tampered.test.ts: of a removed workspace nothing opens, although all else of it is put back from a dump",
      ],
      [
        "every ciphertext is bound to its place, by whole tags",
        "src/secret/tampered.test.ts: with a tag of 0 to 15 bytes, of the value and of its data key",
        "src/secret/tampered.test.ts: in the place of another secret, version, name or workspace, as a whole or in parts",
        "src/secret/tampered.test.ts: under another name, in another workspace, or as another number",
        "src/secret/envelope.test.ts: no two lists of names bind to the same bytes",
      ],
      [
        "authorities and signing keys count where their private half opens in their row",
        "src/cluster/authorities.test.ts: whoever writes the table has no authority of his own trusted, in a row of his nor in another's",
        "src/secret/identity-issuer.test.ts: is not published: its private half is nowhere that opens",
        "src/secret/identity-issuer.test.ts: is not published in the place of another, nor is anything beside a key",
      ],
      [
        "what key services wrap is bound to its place and checked on its way",
        "src/secret/key-services.test.ts: gives back what it wrapped, at its place only",
        "src/secret/key-services.test.ts: opens nothing whose bytes changed, were cut off, or are another key's",
        "src/secret/key-services.test.ts: binds a wrapped key to its place by the encryption context",
        "src/secret/key-services.test.ts: an answer that does not say that the checksums were verified is not believed",
      ],
      [
        "another key takes the place of one that may be known, while everything is in use",
        "src/role/key-rotation.test.ts: rotations by two processes under load fail no read and no write and leave no row behind",
        "src/role/key-rotation.test.ts: what is written just as another key becomes primary is under that one",
        "src/role/key-rotation.test.ts: a row that changed since it was read is not overwritten",
        "test/journey/key-hosts.test.ts: two gateways on one database: a rotation waits for the key to be on both, and then fails no read of either",
      ],
      [
        "a removed workspace's key is overwritten and forgotten",
        "src/secret/tampered.test.ts: a workspace's wrapped key is overwritten before its row goes",
        "src/secret/tampered.test.ts: a workspace's key that a key service opened is forgotten with the workspace",
      ],
      [
        "what happened is only ever added to",
        "src/audit/store.test.ts: is only ever added to: what changes, removes or empties it is refused",
      ],
    ],
  },
  {
    attack: "the index or trace store is written by others",
    defences: [
      [
        "its hashes are in the database, and the worker checks",
        "src/image/layer-proofs.test.ts: changes nothing with the folders of two layers swapped",
        "src/mount/faults.test.ts: an index whose span files are swapped is refused before anything is mounted",
        "test/journey/mount.test.ts: refuses an index that was changed, by name, and a fresh one heals it",
      ],
      [
        "traces are hints, bounded, and a workspace's own",
        "src/index/trace.test.ts: a trace is bounded in ranges and in bytes",
        "src/index/trace.test.ts: traces are kept by workspace, image and command",
        "test/journey/strangers.test.ts: shows another who may have it nothing of what its starts read",
      ],
    ],
  },
  {
    attack: "somebody makes a worker up, or goes on as one that was revoked",
    defences: [
      [
        "hosts join by a token for short-lived certificates of the cluster's own authority",
        "src/cluster/join.test.ts: a join token that was revoked, is of another role or was made up lets nobody in",
        "src/cluster/join.test.ts: no certificate, one of another cluster, and the control plane's own open nothing that is a worker's",
        "src/cluster/join.test.ts: a revoked worker is refused at its next call over the same connection, and neither renews nor joins",
        "test/journey/cluster.test.ts: neither a thief with the join token nor another cluster's certificates stand in for a worker or a scheduler",
      ],
    ],
  },
  {
    attack: "a tenant's settings send a cloud's SDK to a place of his",
    defences: [
      [
        "SDKs go out by our own way, regions and universes come from hosts and code",
        "src/registry/issuer-fetch.test.ts: that redirect are not followed",
        "src/registry/issuer-fetch.test.ts: are refused with %s",
        "src/credential/google.test.ts: is asked for at Google's one place, whatever the file names",
        "src/credential/ecr-host.test.ts: %s is of partition %s and its STS is %s",
      ],
    ],
  },
  reachesOut,
  takesAll,
  {
    attack: "somebody has a dump of the queue, or sends a captured hand-over again",
    defences: [
      [
        "credentials are sealed to a worker's boot, for one request, once",
        "src/secret/seal.test.ts: the worker opens what was sealed to its boot key, and the sealed text shows nothing",
        "src/secret/seal.test.ts: opens only in the context that it was sealed for",
        "src/secret/seal.test.ts: opens once for each request, also when asked twice at the same time",
        "src/secret/replay.test.ts: of many at once one opens",
        "src/secret/hpke-vectors.test.ts: the suite in use gives the encryptions of RFC 9180's vectors, and opens them",
      ],
    ],
  },
  {
    attack: "a worker is compromised",
    defences: [
      [
        "it has a token for one repository where there is one, and no longer than its container lives",
        "src/scheduler/attach.test.ts: has a token for the repository minted, with which a worker may pull that one and no other",
        "src/registry/mint.test.ts: never hands out a token that grants less than was asked for",
        "test/journey/delivery.test.ts: uses a rotated secret with the next, and a revoked one not at all: then only what is here is read",
        "src/cluster/join.test.ts: every call that is a worker's says which, and no worker speaks for another",
      ],
      [
        "it is called by TLS at a host of its own certificate, and its answers are no longer than we can hold",
        "src/scheduler/register.test.ts: a worker at %p is not registered: it would be called there",
        "src/container/worker-client.test.ts: a worker's address without TLS is not called: nobody there has to be the worker",
        "src/container/worker-client.test.ts: a worker fills nobody's memory with its answer",
      ],
    ],
  },
  {
    attack: "a credential is in a log, an error, a file, an argument or an environment",
    defences: [
      [
        "credentials planted through every entry are found nowhere after everything has failed",
        "test/journey/canary-everywhere.test.ts: in what anybody said, answers on the wire and logs of all levels included, and in a dump of the database",
        "test/journey/canary-everywhere.test.ts: in arguments and environments, at any moment of any process",
        "test/journey/canary-everywhere.test.ts: in any file but those that are there to hold it, which only their owner can read",
        "test/journey/canary-everywhere.test.ts: but is, once it is left somewhere on purpose",
      ],
      [
        "values print as [redacted]; foreign errors, and what was wrong with a request, are told without their words",
        "src/db/database.test.ts: errors carry neither statements nor what was bound to them",
        "src/registry/redirect.test.ts: a store that refuses what was just resolved is an error that shows no URL",
        "src/rpc/error.test.ts: is not told the message of an error that is not ours",
        "src/rpc/request.test.ts: case %#",
        "test/tidy.test.ts: plain values are taken out only in the rooms that use them",
      ],
      [
        "files with secrets that others can read are refused",
        "test/journey/loose-modes.test.ts: a command reads no token and no credentials that others can read",
        "test/journey/loose-modes.test.ts: a node starts with no key and no token that others can read",
      ],
    ],
  },
  {
    attack: "another user of the host looks for what tenants have there",
    defences: [
      [
        "what is mounted, indexed and cached is in folders that only the node passes",
        "test/journey/local-user.test.ts: another user of the host reads no file of an image that is built, mounted or running here",
        "test/journey/local-user.test.ts: folders that an earlier version left open are closed at the next start",
      ],
    ],
  },
  {
    attack: "a crash leaves memory in a file, or a variable has the executable run or show something else",
    defences: [
      [
        "no core, no tracer",
        "test/journey/hardening.test.ts: a crash of whatever role or command writes no core, even where the limit is put back",
        "test/journey/hardening.test.ts: a command that holds a token shows itself to nobody, not even to other processes of its user",
        "test/journey/canary-everywhere.test.ts: every role, by SIGSEGV and SIGABRT under no limit of cores; none leaves one",
      ],
      [
        "variables of the runtime are refused, files of the working folder are not read",
        "test/journey/hardening.test.ts: %s is refused by name before anything is done, and does nothing before that",
        "test/journey/hardening.test.ts: what lies in the working directory changes nothing, and is not even opened",
      ],
      [
        "no TLS before 1.2",
        "test/journey/tls-versions.test.ts: no server of ours speaks TLS 1.1, to whomever",
      ],
    ],
  },
  {
    attack: "an image is made to break out, to mislead, or to fill memory and disk",
    defences: [
      [
        "it is never extracted; its names are cleaned, its links stay inside, its bytes are proved before they are read",
        "src/index/tar-reader.test.ts: cleans names: absolute ones are relative to the root, empty and dot parts vanish",
        "src/index/merge.test.ts: links never lead out of the root",
        "src/index/layer-index.test.ts: refuses bytes that are not those of the digest, leaving no file behind",
        "src/mount/faults.test.ts: bytes that stay wrong are an error for the reader, and a later good read heals",
      ],
      [
        "limits on all that it can cost, in a process of its own",
        "src/index/layer-index.test.ts: stops bombs at the limits",
        "src/index/child.test.ts: holds the process to its memory",
        "src/index/child.test.ts: holds the process to its time on a core",
        "test/journey/hostile.test.ts: a node refuses by the limits of its configuration, and goes on with the next image",
      ],
    ],
  },
  {
    attack: "memory is filled by requests, values or reads without end",
    defences: [
      [
        "limits on everything that comes in, told by name",
        "src/rpc/request.test.ts: a request that is too large is refused before it is read",
        "src/rpc/server.test.ts: of a stranger is refused by its length alone, before it is read",
        "src/rpc/server.test.ts: of a stranger who does not say its length is refused once it is more than a little",
        "src/registry/issuer-fetch.test.ts: with an endless answer are cut off",
        "test/journey/bad-input-many.test.ts: ten thousand secrets in a workspace are made, listed, and in no run's way",
        "src/audit/printable.test.ts: whoever sends %p over and over holds up nobody",
      ],
      [
        "workspaces take turns where a few are served at once",
        "src/health/health-loop.test.ts: leaves another's their turn while some are under way, which may hang",
        "src/health/health-loop.test.ts: leaves another's their turn at the same registry",
      ],
      [
        "a read that cannot be answered is EIO",
        "src/native/fuse.test.ts: a failed fetch is EIO, and the next read asks again",
        "src/native/fuse.test.ts: a read that nobody answers ends with EIO at its deadline, and is not waited for twice",
      ],
    ],
  },
  {
    attack: "a stale or colliding credential takes the place of the right one",
    defences: [
      [
        "one secret for each account and host, and no way back but by hand",
        "src/secret/keep.test.ts: a build with an older value does not undo a rotation, though the registry still takes it",
        "src/secret/keep.test.ts: twenty builds of one account at once make one secret, and those of other accounts and hosts their own",
        "src/credential/secret-name.test.ts: the last candidate belongs to one host and principal alone, however alike they are",
        "test/journey/rotation-race.test.ts: twenty runs that wait while the secret is rotated all use the new value",
      ],
    ],
  },
  ...codeAttacks,
  ...endpointAttacks,
];
