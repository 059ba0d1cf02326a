import { afterEach, describe, expect, test } from "bun:test";
import { CredentialError } from "../credential/error.ts";
import { digestOf } from "../reference/digest.ts";
import { Redacted } from "../std/redacted.ts";
import type { Descriptor } from "./descriptor.ts";
import { noise } from "./image.test-kit.ts";
import { awsPassword, leasedToken, numberedProvider } from "./issuer.test-kit.ts";
import { repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import {
  type RawReply,
  type RawRequest,
  type RawServer,
  rangeReply,
  startRawServer,
} from "./raw-server.test-kit.ts";
import type { Repository } from "./repository.ts";

const signal = new AbortController().signal;
const bytes = noise(100_000, 3);
const blob: Descriptor = { mediaType: "layer", digest: digestOf(bytes), size: bytes.length };
const servers: RawServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

/** Serves the blob to whoever sends the header that is good now; others get the refusal. */
async function serve(
  good: () => string,
  refusal: RawReply | ((request: RawRequest) => RawReply),
): Promise<RawServer> {
  const server = await startRawServer((request) => {
    if (request.headers.get("authorization") === good()) return rangeReply(request, bytes);
    return typeof refusal === "function" ? refusal(request) : refusal;
  });
  servers.push(server);
  return server;
}

const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString("base64")}`;
const read = (of: Repository, at = 0): Promise<Uint8Array> => of.openBlob(blob, at, at + 100, signal);
const challenge = { "www-authenticate": 'Basic realm="r"' };

describe("what an issuer or a lease gives", () => {
  test.each([401, 403])(
    "is asked for anew, once, when the registry answers %p to a bearer token",
    async (status) => {
      let good = "Bearer t1";
      const server = await serve(() => good, { status });
      const provider = numberedProvider(server.host, leasedToken);
      const repository = repositoryAt(server.host, { provider });
      await read(repository);
      expect(server.requests).toHaveLength(1);
      good = "Bearer t2";
      await read(repository);
      expect(provider.refreshes()).toBe(1);
      good = "Bearer never";
      await expect(read(repository)).rejects.toMatchObject({
        code: status === 401 ? "unauthorized" : "denied",
      });
      await expect(read(repository)).rejects.toMatchObject({ name: "RegistryError" });
      expect(provider.refreshes()).toBe(1);
    },
  );

  test("is asked for anew later, when what was new is refused for its age", async () => {
    const clock = virtualClock();
    let good = "Bearer t1";
    const server = await serve(() => good, { status: 401 });
    const provider = numberedProvider(server.host, leasedToken);
    const repository = repositoryAt(server.host, { provider, clock });
    for (let number = 1; number < 5; number += 1) {
      good = `Bearer t${number}`;
      await read(repository);
      clock.pass(10_000);
    }
    expect(provider.refreshes()).toBe(3);
  });

  test("goes with the first request where the registry is known to ask for just this", async () => {
    const server = await serve(() => basic("AWS:1"), { status: 401, headers: challenge });
    const preemptive = { ...awsPassword()(1), preemptive: true } as const;
    const provider = numberedProvider(server.host, () => preemptive);
    await read(repositoryAt(server.host, { provider }));
    expect(server.requests).toHaveLength(1);
  });

  test("that went first is exchanged where the registry wants a token after all", async () => {
    const server = await startRawServer((request) => {
      if (request.url.pathname === "/token") return { status: 200, body: '{"token":"t"}' };
      if (request.headers.get("authorization") === "Bearer t") return rangeReply(request, bytes);
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${server.host}/token"` } };
    });
    servers.push(server);
    const password = new Redacted("p");
    const provider = numberedProvider(server.host, () => ({
      kind: "basic",
      username: "u",
      password,
      preemptive: true,
    }));
    await read(repositoryAt(server.host, { provider }));
    expect(server.requests.map(({ headers }) => headers.get("authorization"))).toEqual([
      basic("u:p"),
      basic("u:p"),
      "Bearer t",
    ]);
    expect(provider.refreshes()).toBe(0);
  });

  test("is made anew, once, when the token service refuses it", async () => {
    const server = await startRawServer((request) => {
      const header = request.headers.get("authorization");
      if (request.url.pathname === "/token") {
        return header === basic("AWS:2") ? { status: 200, body: '{"token":"t"}' } : { status: 401 };
      }
      if (header === "Bearer t") return rangeReply(request, bytes);
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${server.host}/token"` } };
    });
    servers.push(server);
    const provider = numberedProvider(server.host, awsPassword());
    await read(repositoryAt(server.host, { provider }));
    expect(provider.refreshes()).toBe(1);
  });

  test.each([
    ["a leased token", leasedToken, "Bearer t2", { status: 401 }],
    ["a password of ECR", awsPassword(), basic("AWS:2"), { status: 403 }],
  ])(
    "%s that has expired while 1,000 read is asked for once, and no reader notices",
    async (_, authorizationOf, next, refusal) => {
      const first = authorizationOf(1);
      let good = first.kind === "bearer" ? "Bearer t1" : basic("AWS:1");
      const server = await serve(
        () => good,
        ({ headers }) => (headers.has("authorization") ? refusal : { status: 401, headers: challenge }),
      );
      const provider = numberedProvider(server.host, authorizationOf, () => Bun.sleep(20));
      const repository = repositoryAt(server.host, { provider });
      await read(repository);
      good = next;
      const reads = Array.from({ length: 1000 }, (__, at) => read(repository, at));
      const got = await Promise.all(reads);
      expect(got.every((part, at) => Buffer.from(part).equals(bytes.subarray(at, at + 100)))).toBe(true);
      expect(provider.refreshes()).toBe(1);
    },
  );

  test("is exchanged once when its token has expired while 1,000 read", async () => {
    let made = 0;
    let good = "t1";
    const server = await startRawServer((request) => {
      if (request.url.pathname === "/token") {
        made += 1;
        return { status: 200, body: JSON.stringify({ token: `t${made}`, expires_in: 300 }) };
      }
      if (request.headers.get("authorization") === `Bearer ${good}`) return rangeReply(request, bytes);
      return { status: 401, headers: { "www-authenticate": `Bearer realm="http://${server.host}/token"` } };
    });
    servers.push(server);
    const repository = repositoryAt(server.host, { password: "pw" });
    await read(repository);
    good = "t2";
    const got = await Promise.all(Array.from({ length: 1000 }, (_, at) => read(repository, at)));
    expect(got.every((part, at) => Buffer.from(part).equals(bytes.subarray(at, at + 100)))).toBe(true);
    expect(made).toBe(2);
  });

  test("is not asked for over and over while the issuer refuses", async () => {
    const clock = virtualClock();
    let asked = 0;
    const server = await serve(() => "Bearer none", { status: 401 });
    const provider = {
      ...numberedProvider(server.host, leasedToken),
      authorization: async (_: unknown, options?: { refresh?: boolean }) => {
        if (options?.refresh !== true) return leasedToken(1);
        asked += 1;
        throw new CredentialError("provider_failed", "the keys were revoked");
      },
    };
    const repository = repositoryAt(server.host, { provider, clock });
    for (let round = 0; round < 5; round += 1)
      await expect(read(repository)).rejects.toMatchObject({ code: "provider_failed" });
    expect(asked).toBe(1);
    clock.pass(5_000);
    await expect(read(repository)).rejects.toMatchObject({ code: "provider_failed" });
    expect(asked).toBe(2);
  });
});

describe("what was agreed", () => {
  const bearer = (host: string, path: string): RawReply => ({
    status: 401,
    headers: { "www-authenticate": `Bearer realm="http://${host}${path}"` },
  });

  test("is no obstacle when a credential gives way to a leased token, and back", async () => {
    const clock = virtualClock();
    let good = "Bearer exchanged";
    const server = await startRawServer((request) => {
      if (request.url.pathname === "/token")
        return { status: 200, body: '{"token":"exchanged","expires_in":100}' };
      return request.headers.get("authorization") === good
        ? rangeReply(request, bytes)
        : bearer(server.host, "/token");
    });
    servers.push(server);
    const provider = numberedProvider(server.host, (number) =>
      number === 2 ? leasedToken(2) : { kind: "basic", username: "u", password: new Redacted("p") },
    );
    const repository = repositoryAt(server.host, { provider, clock });
    await read(repository);
    good = "Bearer t2";
    await provider.authorization(signal, { refresh: true });
    clock.pass(60_000);
    await read(repository);
    good = "Bearer exchanged";
    clock.pass(60_000);
    await read(repository);
    expect(provider.refreshes()).toBe(2);
  });
});
