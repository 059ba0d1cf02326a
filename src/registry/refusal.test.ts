import { afterEach, beforeAll, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { anonymousProvider } from "../credential/provider.ts";
import { sourcedProvider } from "../credential/sourced.ts";
import { credentialMap } from "../credential/value.ts";
import { type Certificate, makeCertificate, makeExpiredCertificate } from "./certificate.test-kit.ts";
import { mediaTypes } from "./descriptor.ts";
import type { RegistryError, RegistryErrorCode } from "./error.ts";
import { makeImage } from "./image.test-kit.ts";
import { awsPassword, numberedProvider } from "./issuer.test-kit.ts";
import { basicProvider, type QuirkOptions, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawRequest, type RawServer, startRawServer } from "./raw-server.test-kit.ts";

const signal = new AbortController().signal;
const amd64 = { os: "linux", architecture: "amd64" };
const image = makeImage();
const password = "hunter2-s3cr3t";
const servers: { stop(): unknown }[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function serve(handle: (request: RawRequest) => RawReply): Promise<RawServer> {
  const server = await startRawServer(handle);
  servers.push(server);
  return server;
}

/** The error of a build, and of a HEAD of the manifest (which has no body to say more), which must be the same. */
async function refusal(host: string, options: QuirkOptions): Promise<RegistryError> {
  const policy = { totalTimeoutMs: 500, attemptsMax: 1, ...options.policy };
  const all = { password, ...options, policy };
  const ask = (work: Promise<unknown>): Promise<RegistryError> =>
    work.then(
      () => Promise.reject(new Error("it was not refused")),
      (thrown: unknown) => thrown as RegistryError,
    );
  const built = await ask(repositoryAt(host, all).resolve(amd64, signal));
  const headed = await ask(repositoryAt(host, all).headManifest("1", signal));
  expect([headed.code, headed.next]).toEqual([built.code, built.next]);
  return built;
}

const basicChallenge = { "www-authenticate": 'Basic realm="r"' };
const believed = (request: RawRequest, reply: RawReply): RawReply =>
  request.headers.has("authorization") ? reply : { status: 401, headers: basicChallenge };
const said = (code: string, message = "x"): string => JSON.stringify({ errors: [{ code, message }] });

let certificates: { readonly fine: Certificate; readonly other: Certificate; readonly expired: Certificate };
beforeAll(async () => {
  const [fine, other, expired] = await Promise.all([
    makeCertificate("registry.test"),
    makeCertificate("other.test"),
    makeExpiredCertificate("registry.test"),
  ]);
  certificates = { fine, other, expired };
});

function overTls(
  served: Certificate,
  trusted: Certificate,
  clientName = "registry.test",
): [string, QuirkOptions] {
  const tls = { key: served.key, cert: served.certificate };
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", tls, fetch: () => new Response("") });
  servers.push({ stop: () => server.stop(true) });
  const host = `${clientName}:${server.port}`;
  const policy = { insecureHosts: new Set<string>(), privateHosts: new Set([host]), ca: trusted.certificate };
  return [
    host,
    { policy, resolveHost: async () => ["127.0.0.1"], clock: { ...virtualClock(), now: Date.now } },
  ];
}

const at = async (handle: (request: RawRequest) => RawReply, options: QuirkOptions = {}) =>
  [(await serve(handle)).host, options] as [string, QuirkOptions];

interface Row {
  readonly name: string;
  readonly code: RegistryErrorCode;
  readonly message: RegExp;
  readonly next: RegExp;
  readonly scene: () => Promise<[string, QuirkOptions]>;
}

const rows: readonly Row[] = [
  {
    name: "a bad secret",
    code: "unauthorized",
    message: /refuses the credential for/,
    next: /Check user name and password/,
    scene: () => at(() => ({ status: 401, headers: basicChallenge })),
  },
  {
    name: "no pull right on this repository",
    code: "denied",
    message: /does not allow this credential to pull .*acme\/app.*, or there is no such image/,
    next: /Give the account the right to pull/,
    scene: () => at((request) => believed(request, { status: 403, body: said("DENIED") })),
  },
  {
    name: "no such image, with a credential",
    code: "not_found",
    message: /acme\/app:1 does not exist .*404/,
    next: /some registries answer so when the credential has no pull right/,
    scene: () => at((request) => believed(request, { status: 404, body: said("MANIFEST_UNKNOWN") })),
  },
  {
    name: "no such image, without a credential",
    code: "not_found",
    message: /acme\/app:1 does not exist .*404/,
    next: /a private image needs --creds/,
    scene: async () => {
      const [host] = await at(() => ({ status: 404, body: said("MANIFEST_UNKNOWN") }));
      return [host, { provider: anonymousProvider(host) }];
    },
  },
  {
    name: "a registry that is not there",
    code: "unreachable",
    message: /cannot be reached/,
    next: /Check that the registry is up/,
    scene: async () => {
      const server = await startRawServer(() => ({ status: 200 }));
      await server.stop();
      return [server.host, { clock: { ...virtualClock(), now: Date.now } }];
    },
  },
  {
    name: "a registry that fails",
    code: "unreachable",
    message: /failed \(503\)/,
    next: /try again later/,
    scene: () => at(() => ({ status: 503 })),
  },
  {
    name: "a certificate that has expired",
    code: "tls",
    message: /the certificate of registry\.test:\d+ has expired/,
    next: /renew it, or check this machine's clock/,
    scene: async () => overTls(certificates.expired, certificates.expired),
  },
  {
    name: "a certificate of an unknown authority",
    code: "tls",
    message: /from an authority that this machine does not know/,
    next: /ca_file under \[registry\.hosts/,
    scene: async () => overTls(certificates.fine, certificates.other),
  },
  {
    name: "a certificate of another host",
    code: "tls",
    message: /is for another host/,
    next: /Check the host's name/,
    scene: async () => overTls(certificates.fine, certificates.fine, "elsewhere.test"),
  },
  {
    name: "a limit on pulls",
    code: "rate_limited",
    message: /limits how often .*acme\/app:1 may be asked for/,
    next: /Try again at 2026-01-01T02:00:00Z, in 120 min/,
    scene: () => at(() => ({ status: 429, headers: { "retry-after": "7200" } })),
  },
  {
    name: "a password of ECR that has expired, by the registry's word",
    code: "expired",
    message: /the credential for .*acme\/app:1 has expired/,
    next: /Make a new one/,
    scene: () => {
      const body = said("DENIED", "Your authorization token has expired. Reauthenticate and try again.");
      return at((request) => believed(request, { status: 403, body }));
    },
  },
];

describe("at a build and at a HEAD of its manifest", () => {
  const told = new Map<string, string>();

  test.each(rows.map((row) => [row.name, row] as const))(
    "%s is told by name, with the next step",
    async (_, row) => {
      const [host, options] = await row.scene();
      const error = await refusal(host, options);
      expect(error).toMatchObject({ name: "RegistryError", code: row.code });
      expect(error.message).toMatch(row.message);
      expect(error.next ?? "").toMatch(row.next);
      const encoded = Buffer.from(`alice:${password}`).toString("base64");
      expect(inspect(error, { depth: 9 })).not.toContain(password);
      expect(inspect(error, { depth: 9 })).not.toContain(encoded);
      told.set(row.name, `${error.code} ${error.message} ${error.next}`.replaceAll(host, "HOST"));
    },
  );

  test("no two of them are told alike", () => {
    expect(new Set(told.values()).size).toBe(rows.length);
  });
});

describe("with a credential that another program keeps, and has no other of", () => {
  const kept = credentialMap({ USERNAME: "alice", PASSWORD: password });
  const from = (host: string): QuirkOptions => ({ provider: sourcedProvider(host, kept, async () => kept) });

  test.each([
    ["a bad secret", "unauthorized", 401, /refuses the credential for/, /Log in to .* again where/],
    ["no pull right", "denied", 403, /does not allow this credential to pull/, /the right to pull/],
  ] as const)("%s is told as what it is", async (_, code, status, message, next) => {
    const reply = { status, headers: basicChallenge, body: said("DENIED") };
    const [host] = await at((request) => believed(request, reply));
    const error = await refusal(host, from(host));
    expect([error.code, error.message, error.next]).toEqual([
      code,
      expect.stringMatching(message),
      expect.stringMatching(next),
    ]);
  });

  test("a password that the token service refuses is told as one, and not sent once more", async () => {
    const server = await serve(({ url }) => {
      if (url.pathname === "/token") return { status: 401 };
      const realm = `http://${url.host}/token`;
      return { status: 401, headers: { "www-authenticate": `Bearer realm="${realm}",service="s"` } };
    });
    const { code, message } = await refusal(server.host, from(server.host));
    expect([code, message]).toEqual(["unauthorized", expect.stringContaining("refuses the credential")]);
    expect(server.lines().filter((line) => line.startsWith("GET /token"))).toHaveLength(2);
  });
});

describe("Amazon ECR Public", () => {
  /** Its token service gives 400 to a password that has ended. */
  async function publicEcr(good: string): Promise<QuirkOptions> {
    const server = await serve(({ url, headers }) => {
      if (url.pathname === "/token/") {
        const expected = `Basic ${Buffer.from(`AWS:${good}`).toString("base64")}`;
        return headers.get("authorization") === expected
          ? { status: 200, body: '{"token":"t"}' }
          : { status: 400 };
      }
      const type = { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest };
      if (headers.get("authorization") === "Bearer t")
        return { status: 200, headers: type, body: image.manifestBytes };
      const realm = 'realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="aws"';
      return { status: 401, headers: { "www-authenticate": `Bearer ${realm}` } };
    });
    const hosts = new Map([["public.ecr.aws", { connect: new URL(`http://${server.host}`) }]]);
    return { policy: { hosts } };
  }

  test("has a password that has ended made anew, once, for the 400 that it answers", async () => {
    const provider = numberedProvider("public.ecr.aws", awsPassword());
    const repository = repositoryAt("public.ecr.aws", { ...(await publicEcr("2")), provider });
    expect(await repository.headManifest("1", signal)).toEqual(image.manifest);
    expect(provider.refreshes()).toBe(1);
  });

  test("is told as expired where nothing can be made anew, or the new one is refused as well", async () => {
    const fixed = basicProvider("public.ecr.aws", "old");
    const made = numberedProvider("public.ecr.aws", awsPassword());
    for (const provider of [fixed, made]) {
      const asked = repositoryAt("public.ecr.aws", { ...(await publicEcr("none")), provider });
      await expect(asked.headManifest("1", signal)).rejects.toMatchObject({ code: "expired" });
    }
    expect(made.refreshes()).toBe(1);
  });

  test.each([
    ["a token of its token service", "Bearer t1", "Bearer t2"],
    [
      "the password itself",
      `Basic ${Buffer.from("AWS:1").toString("base64")}`,
      `Basic ${Buffer.from("AWS:2").toString("base64")}`,
    ],
  ])("has %s made anew, once, for the 400 of its API", async (_, first, second) => {
    let good = first;
    let made = 0;
    const server = await serve(({ url, headers }) => {
      if (url.pathname === "/token/") {
        made += 1;
        return { status: 200, body: JSON.stringify({ token: `t${made}`, expires_in: 43_200 }) };
      }
      const header = headers.get("authorization");
      const type = { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest };
      if (header === good) return { status: 200, headers: type, body: image.manifestBytes };
      if (header !== null) return { status: 400, body: said("DENIED") };
      const challenge = first.startsWith("Bearer")
        ? 'Bearer realm="https://public.ecr.aws/token/"'
        : 'Basic realm="r"';
      return { status: 401, headers: { "www-authenticate": challenge } };
    });
    const hosts = new Map([["public.ecr.aws", { connect: new URL(`http://${server.host}`) }]]);
    const provider = numberedProvider("public.ecr.aws", awsPassword());
    const repository = repositoryAt("public.ecr.aws", { policy: { hosts }, provider });
    await repository.headManifest("1", signal);
    good = second;
    await repository.headManifest("1", signal);
    good = "none";
    await expect(repository.headManifest("1", signal)).rejects.toMatchObject({ name: "RegistryError" });
    expect(made + provider.refreshes()).toBe(first.startsWith("Bearer") ? 2 : 1);
  });
});
