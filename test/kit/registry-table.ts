/** What registries do, and the tests that show that we take it well, as `FILE: TITLE`. */
export type Row = readonly [fact: string, ...tests: string[]];

/** The protocol, sentence by sentence. */
export const protocol: readonly Row[] = [
  [
    "challenges are parsed as RFC 7235 says, several of them joined by commas",
    "src/registry/challenge.test.ts: parses %p",
    "src/registry/challenge.test.ts: ends in bounded time on any text",
    "src/registry/protocol.test.ts: in several fields are one list, of which the one with tokens is taken",
  ],
  [
    "the challenged scope goes first: some registries read one",
    "src/registry/session.test.ts: asks with the challenged scope first, its service, and basic credentials",
    "test/journey/registry-rows.test.ts: Quay: a robot org+name pulls through 302 and CloudFront's signatures, one scope at a time",
  ],
  [
    "GET repeats scope=, POST sends one joined by spaces, and a 404 on POST means GET",
    "src/registry/session.test.ts: posts a refresh token, and asks by GET where POST is not there",
    "src/registry/protocol.test.ts: scopes go one by one in a GET, and joined by a space in a POST",
  ],
  [
    "token or access_token",
    "src/registry/session.test.ts: renews a token at half of the life that %s gives",
    "test/journey/registry-rows.test.ts: Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization",
  ],
  [
    "no expires_in means 60 s",
    "src/registry/session.test.ts: renews a token at half of the life that %s gives",
    "test/journey/registry-rows.test.ts: GHCR: a token without expires_in is renewed, and a redirect that is over is asked for once more",
  ],
  [
    "fewer scopes than asked for are answered with 200: a token proves nothing",
    "src/registry/client.test.ts: tells a wrong password from an account without the right to pull",
    "src/registry/mint.test.ts: never hands out a token that grants less than was asked for",
    "test/journey/wrong-credential.test.ts: for a credential that may not pull from this repository",
  ],
  [
    "refresh tokens come only when they are asked for, and spare the password",
    "src/registry/exchange.test.ts: is asked for at the second exchange, and sent in place of the password from then on",
    "src/registry/exchange.test.ts: that is refused is given up for the password, in the same request",
  ],
  [
    "tokens are kept by credential version, host and scope",
    "src/registry/protocol.test.ts: are kept apart by the credential's version, and by the repository",
    "src/registry/authorization.test.ts: stays apart for two credentials of one registry",
    "src/registry/client.test.ts: exchanges the credential once for many requests",
  ],
  [
    "one exchange in flight for all who wait",
    "src/registry/mint.test.ts: asks nobody until half of its life is over, then once for all who wait",
  ],
  [
    "renewed at half of the life",
    "src/registry/session.test.ts: renews a token at half of the life that %s gives",
    "test/journey/registry-rows.test.ts: a container that reads for three lives of its tokens is never refused, and asks for few",
  ],
  [
    "the old token serves until its end when the provider fails",
    "src/registry/session.test.ts: keeps the old token while the token service is away, until its end",
    "src/credential/ecr.test.ts: keeps the old token while AWS is away, until its end",
    "src/registry/mint.test.ts: keeps the last one while the registry is away, until its end",
    "src/registry/clouds.test.ts: from %s: none fails, and tokens are asked for by the hour",
  ],
  [
    "a 401 renews once, and then is remembered for a short while",
    "src/registry/session.test.ts: makes a new token, once, when the registry refuses the one that was kept",
    "src/registry/client.test.ts: does not send a wrong password again for a while",
  ],
  [
    "redirects are followed by hand; Authorization and every header of ours stay at home",
    "src/registry/redirect.test.ts: go to another host without Authorization, and are remembered until their signature ends",
    "test/journey/registry-rows.test.ts: Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization",
  ],
  [
    "a redirect is kept as long as it is good, and asked for once more on 403 and 410",
    "src/registry/redirect-expiry.test.ts: %s is good for so long",
    "src/registry/redirect.test.ts: are resolved anew, once, when the store answers %p",
    "test/journey/registry-store.test.ts: docker-registry with htpasswd and an S3 store: redirects are followed without the password, and asked for again when they are over",
  ],
  [
    "HEAD on a presigned GET is refused by some: blobs are sized by their descriptors",
    "test/journey/registry-store.test.ts: docker-registry with tokens and an S3 store: the token stays at the registry, and the redirect is asked for again with it",
    "src/registry/protocol.test.ts: is sized by its descriptor: one GET reads it, and no HEAD is sent for it",
    "src/registry/blob.test.ts: of %p bytes instead of 200000 are %s",
  ],
  ["206 and the exact Content-Range", "src/registry/blob.test.ts: a 206 with Content-Range %p is refused"],
  [
    "a 200 to a range means one whole stream, resumed and verified",
    "src/registry/blob.test.ts: a 200 to a ranged request is range_unsupported, and the body is not read",
    "src/registry/blob.test.ts: go on without ranges by passing over what was had",
    "src/mount/registry-odd.test.ts: is read as one stream, which goes on after a break",
  ],
  [
    "a body in flight outlives its token; what is missing after a break is asked for with the next",
    "src/registry/protocol.test.ts: whose token ends while it comes and whose connection then falls silent goes on with the rest and a new token",
  ],
  [
    "a break asks for the remaining range only",
    "src/registry/blob.test.ts: a short body, and one that breaks off, go on where they stopped",
  ],
  [
    "408, 429, 5xx and broken connections are tried again, with capped and jittered pauses",
    "src/registry/egress.test.ts: by breaking connections, 408, 429 and 5xx is asked again",
    "src/registry/retry.test.ts: pauses longer each time, within bounds, half of it by chance",
  ],
  [
    "Retry-After is seconds, a date, or a Unix time",
    "src/registry/retry.test.ts: %p",
    "src/registry/retry.test.ts: waits as long as the registry asks, and gives up at once when that is too long",
  ],
  [
    "one breaker for each host",
    "src/registry/egress.test.ts: again and again is asked by one at a time, and by all when it works again",
  ],
  [
    "bodies of token services are capped at 64 KiB",
    "src/registry/session.test.ts: of a token service that answers %s fails by name",
  ],
  [
    "manifests of all four types, by platform",
    "src/registry/resolve.test.ts: asks for all four kinds, once",
    "src/registry/client.test.ts: picks the platform from an index, and names what there is when it lacks one",
  ],
  [
    "schema 1 and foreign urls are refused",
    "src/registry/resolve.test.ts: refuses schema 1 with a hint",
    "src/registry/manifest.test.ts: with %s is refused",
  ],
  [
    "digest and size of everything are verified",
    "src/registry/resolve.test.ts: refuses a manifest that is not what its index, or its header, says",
    "src/registry/resolve.test.ts: refuses a configuration that is corrupt, or for another machine",
    "src/registry/blob.test.ts: with another content than the digest's fail at the end",
    "test/journey/trouble.test.ts: whose image's bytes come damaged reads an error, never wrong bytes, and says why",
  ],
  [
    "layers: tar, gzip of several members, zstd of several frames with skippable ones, eStargz, zstd:chunked",
    "src/index/layer-index.test.ts: passes over empty members, zero padding and garbage behind a gzip layer",
    "src/index/layer-index.test.ts: passes over skippable frames before, between and behind; the last span does not fetch them",
    "src/index/layer-index.test.ts: cuts a layer that is a plain tar into pieces",
    "test/journey/formats.test.ts: of an image that is said to be zstd:chunked and has a name that its table cannot hold",
    "src/index/chunk-table-image.test.ts: a registry without ranges gives the layer as a whole",
  ],
];

/** Each registry, with its credential, the life of its tokens and its quirk. */
export const registries: readonly Row[] = [
  [
    "Amazon ECR",
    "test/journey/registry-rows.test.ts: Amazon ECR: a password of twelve hours ends with a 403 without a challenge, and the next is used",
    "test/journey/registry-rows.test.ts: Amazon ECR: a role is assumed under the external id that is the workspace's own",
    "test/journey/registry-rows.test.ts: Amazon ECR: registries of China, of FIPS and of both Internets are asked with a password of their own API",
    "test/journey/registry-rows.test.ts: Amazon ECR: a host that only looks like it gets no keys",
    "src/credential/ecr-host.test.ts: %p is none",
    "test/journey/wrong-credential.test.ts: for a password of ECR that is over as soon as it is made",
  ],
  [
    "Amazon ECR Public",
    "test/journey/registry-rows.test.ts: Amazon ECR Public: the 400 of what is over is understood, and the next is used",
    "src/registry/refusal.test.ts: has a password that has ended made anew, once, for the 400 that it answers",
  ],
  [
    "Google Container Registry and Artifact Registry",
    "test/journey/registry-rows.test.ts: Container Registry: an access token serves where the challenge names no service",
    "test/journey/registry-rows.test.ts: Artifact Registry: a service account's key makes access tokens, one after the other",
    "test/journey/registry-rows.test.ts: Artifact Registry: _json_key and _json_key_base64 are user names, whose password is a key file",
  ],
  [
    "Azure Container Registry",
    "test/journey/registry-rows.test.ts: Azure: Entra's token is exchanged, the end is read from the JWT, and the store sees no authorization",
    "test/journey/registry-rows.test.ts: Azure: an identity token, as docker login keeps it, is exchanged as it is",
  ],
  [
    "Docker Hub",
    "test/journey/registry-rows.test.ts: Docker Hub: manifests are asked for by HEAD, tokens of five minutes are renewed at auth.docker.io",
    "test/journey/registry-rows.test.ts: Docker Hub: its host names are one registry with one secret",
    "test/journey/registry-rows.test.ts: Docker Hub: a build tells how many pulls are left",
    "src/registry/hub.test.ts: says how many pulls are left, in which window, and whose they are",
    "src/registry/hub.test.ts: that gives no more pulls is told with its limit and its window",
    "src/registry/hub.test.ts: never sees the fifth failed login, however often wrong builds are tried within ten minutes",
    "test/journey/wrong-credential.test.ts: and a loop of wrong builds never gets there, nor do ten at once",
    "test/journey/registry-changed.test.ts: containers whose password was changed are refused by name, read on what they have, and lock no account",
  ],
  [
    "GHCR",
    "test/journey/registry-rows.test.ts: GHCR: a token without expires_in is renewed, and a redirect that is over is asked for once more",
    "test/journey/registry-rows.test.ts: GHCR: the account's token in base64 is a bearer token as it is",
  ],
  [
    "GitLab",
    "test/journey/registry-rows.test.ts: GitLab: the deploy token goes to gitlab.com and never to the registry",
  ],
  [
    "NGC",
    "test/journey/registry-rows.test.ts: NGC: the key goes to the realm on nvcr.io, and to authn.nvidia.com once that is the realm",
    "src/registry/realm-move.test.ts: is asked for at the registry when the old place answers %p",
  ],
  [
    "Quay",
    "test/journey/registry-rows.test.ts: Quay: a robot org+name pulls through 302 and CloudFront's signatures, one scope at a time",
  ],
  [
    "Harbor",
    "test/journey/registry-rows.test.ts: Harbor: a robot$ pulls, with tokens of thirty minutes",
    "test/journey/wrong-credential.test.ts: for a robot of Harbor that is over, though its login is taken: the repository says so",
    "test/journey/registry-changed.test.ts: a robot of Harbor that ends under its container is refused by name at the next token",
  ],
  [
    "distribution",
    "test/journey/registry-store.test.ts: docker-registry with htpasswd and an S3 store: redirects are followed without the password, and asked for again when they are over",
    "test/journey/registry-store.test.ts: docker-registry with tokens and an S3 store: the token stays at the registry, and the redirect is asked for again with it",
    "test/journey/registry-store.test.ts: docker-registry over TLS, by an authority of the operator's own: under its name, and under no other",
    "test/journey/rotation.test.ts: is used by the very next run once the secret is updated",
  ],
];

/** What a credential may be, and how registries and secrets are named. */
export const credentials: readonly Row[] = [
  [
    "the keys of the clouds' tools and those of the field become the type that fits the registry",
    "src/credential/credential.test.ts: for %s with %p is %s",
    "src/credential/credential.test.ts: %s does not get %p",
  ],
  [
    "one key of a pair is an error that names the other",
    "src/credential/credential.test.ts: one half for %s (%p) names the other",
    "test/journey/refusal.test.ts: a pair with one half missing",
  ],
  [
    "Docker's names are one registry; docker:// and oci:// are taken; localhost, ports and [::1] name registries",
    "src/reference/reference.test.ts: %s is in %s",
    "test/journey/registry-rows.test.ts: Docker Hub: its host names are one registry with one secret",
  ],
  [
    "secrets are named after the registry; a name that is taken gets a suffix of host and principal",
    "src/credential/credential.test.ts: of %s is %s",
    "src/credential/credential.test.ts: a taken name gets a suffix, always the same for the same principal",
    "test/journey/rotation.test.ts: come by standard input, and two accounts of one registry do not overwrite each other",
  ],
];

/** What stands in for the clouds in these tests, and behaves as badly. */
export const substitutes: readonly Row[] = [
  [
    "docker-registry with htpasswd, with tokens, and with an S3 store",
    "test/journey/registry-store.test.ts: docker-registry with htpasswd and an S3 store: redirects are followed without the password, and asked for again when they are over",
    "test/journey/rotation.test.ts: is used by the very next run once the secret is updated",
  ],
  [
    "moto's ECR, whose tokens are given a life",
    "test/kit/moto.test.ts: moto gives tokens of ECR that live as long as the test says, each another",
  ],
  [
    "stores that refuse HEAD and a second authorization, which moto's S3 takes",
    "test/kit/quirk.test.ts: gives what was signed, and refuses HEAD, a second authorization, strange headers and what is over",
    "test/kit/quirk.test.ts: that is moto's S3 refuses the same of what is signed in the URL",
  ],
  [
    "Google's token services and metadata server, asked through our own door whatever a key file names",
    "src/credential/google.test.ts: is asked for at Google's one place, whatever the file names",
    "src/registry/clouds.test.ts: from %s: none fails, and tokens are asked for by the hour",
  ],
];
