import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { makeCertificate } from "./certificate.test-kit.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import type { RegistryPolicy } from "./policy.ts";
import { type QuirkOptions, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import { type RawReply, type RawServer, startRawServer } from "./raw-server.test-kit.ts";

const signal = new AbortController().signal;
const image = makeImage();
const manifest: RawReply = {
  status: 200,
  headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest },
  body: image.manifestBytes,
};
const head = (host: string, options: QuirkOptions = {}): Promise<unknown> =>
  repositoryAt(host, options).headManifest("1", signal);

describe("over TLS", () => {
  let server: Bun.Server<undefined>;
  let ca: string;
  let other: string;
  const hosts: (string | null)[] = [];

  beforeAll(async () => {
    const [mine, theirs] = await Promise.all([
      makeCertificate("registry.test"),
      makeCertificate("other.test"),
    ]);
    ca = mine.certificate;
    other = theirs.certificate;
    server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      tls: { key: mine.key, cert: mine.certificate },
      fetch: ({ headers }) => {
        hosts.push(headers.get("host"));
        return new Response(null, {
          headers: { ...manifest.headers, "Content-Length": String(image.manifest.size) },
        });
      },
    });
  });
  afterAll(() => server.stop(true));

  const policy = (host: string, changes: Partial<RegistryPolicy> = {}): Partial<RegistryPolicy> => ({
    insecureHosts: new Set(),
    privateHosts: new Set([host]),
    ca,
    ...changes,
  });
  const loopback = async (): Promise<string[]> => ["127.0.0.1"];

  test("asks the pinned address under the host's name", async () => {
    const host = `registry.test:${server.port}`;
    expect(await head(host, { policy: policy(host), resolveHost: loopback })).toEqual(image.manifest);
    expect(hosts.at(-1)).toBe(host);
  });

  test.each([
    ["another name's certificate", "elsewhere.test", () => ca],
    ["a certificate of nobody known", "registry.test", () => other],
  ])("refuses %s", async (_, name, authority) => {
    const host = `${name}:${server.port}`;
    const before = hosts.length;
    const asked = head(host, {
      policy: policy(host, { ca: authority() }),
      resolveHost: loopback,
      password: "pw",
    });
    await expect(asked).rejects.toMatchObject({ code: "tls", message: expect.stringContaining(host) });
    expect(hosts).toHaveLength(before);
  });

  test("says so when the registry speaks plain HTTP", async () => {
    const plain = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("hello") });
    const host = `127.0.0.1:${plain.port}`;
    const asked = head(host, { policy: policy(host) });
    await expect(asked).rejects.toMatchObject({
      code: "tls",
      next: expect.stringContaining("--insecure-registry"),
    });
    await plain.stop(true);
  });

  test.each([
    [["127.0.0.1"]],
    [["10.0.0.1", "169.254.169.254"]],
    [["::1"]],
    [["::ffff:192.168.0.1"]],
    [["64:ff9b::a00:1"]],
  ])("refuses a name that leads to %p", async (addresses) => {
    const host = `registry.test:${server.port}`;
    const before = hosts.length;
    const asked = head(host, { policy: { insecureHosts: new Set() }, resolveHost: async () => addresses });
    await expect(asked).rejects.toMatchObject({
      code: "egress_refused",
      message: expect.stringContaining(host),
    });
    expect(hosts).toHaveLength(before);
  });

  test("looks a name up once, and goes to the address that it judged", async () => {
    const host = `registry.test:${server.port}`;
    let count = 0;
    const resolveHost = async (): Promise<string[]> => {
      count += 1;
      return count === 1 ? ["127.0.0.1"] : ["192.0.2.1"];
    };
    const repository = repositoryAt(host, { policy: policy(host), resolveHost });
    await repository.headManifest("1", signal);
    await repository.headManifest("1", signal);
    expect(count).toBe(1);
  });
});

describe("a registry that fails", () => {
  const servers: RawServer[] = [];
  afterEach(async () => {
    for (const server of servers.splice(0)) await server.stop();
  });
  const serve = async (handle: (count: number) => RawReply): Promise<RawServer> => {
    const server = await startRawServer(() => handle(server.requests.length));
    servers.push(server);
    return server;
  };

  test("by being down is unreachable, by name, after a few tries", async () => {
    const server = await serve(() => manifest);
    await server.stop();
    const clock = virtualClock();
    const error: unknown = await head(server.host, { clock }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "unreachable", registry: server.host, next: expect.any(String) });
    expect(clock.slept).toEqual([250, 500, 1000, 2000]);
    expect(inspect(error)).not.toContain("http://");
  });

  test("by having no address is unreachable", async () => {
    const resolveHost = async (): Promise<string[]> => {
      throw Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" });
    };
    const asked = head("registry.invalid", { policy: { insecureHosts: new Set() }, resolveHost });
    await expect(asked).rejects.toMatchObject({
      code: "unreachable",
      message: expect.stringContaining("registry.invalid"),
    });
  });

  test("by hanging is a timeout", async () => {
    const server = await serve(() => ({ status: 200, head: false, hangAfterBytes: 0 }));
    const asked = head(server.host, { policy: { requestTimeoutMs: 40, attemptsMax: 2 } });
    await expect(asked).rejects.toMatchObject({ code: "timeout" });
    expect(server.requests).toHaveLength(2);
  });

  test("by hanging does not hold a caller who leaves", async () => {
    const server = await serve(() => ({ status: 200, head: false, hangAfterBytes: 0 }));
    const controller = new AbortController();
    const asked = repositoryAt(server.host).headManifest("1", controller.signal);
    setImmediate(() => controller.abort(new Error("gone")));
    await expect(asked).rejects.toThrow("gone");
  });

  test("by breaking connections, 408, 429 and 5xx is asked again", async () => {
    const bad: RawReply[] = [
      { status: 200, head: false, cutAfterBytes: 0 },
      { status: 408 },
      { status: 429, headers: { "retry-after": "7" } },
      { status: 503 },
    ];
    const clock = virtualClock();
    const server = await serve((count) => bad[count - 1] ?? manifest);
    expect(await head(server.host, { clock })).toEqual(image.manifest);
    expect(clock.slept).toEqual([250, 500, 7000, 2000]);
  });

  test.each([
    ["seconds", () => "9"],
    ["an HTTP date", (nowMs: number) => new Date(nowMs + 9000).toUTCString()],
    ["a Unix time", (nowMs: number) => String(nowMs / 1000 + 9)],
  ])("by limiting waits as long as Retry-After says in %s", async (_, retryAfter) => {
    const clock = virtualClock();
    const limit = { status: 429, headers: { "retry-after": retryAfter(clock.now()) } };
    const server = await serve((count) => (count === 1 ? limit : manifest));
    await head(server.host, { clock });
    expect(clock.slept).toEqual([9000]);
  });

  test("by limiting for hours is rate_limited at once", async () => {
    const server = await serve(() => ({ status: 429, headers: { "retry-after": "21600" } }));
    await expect(head(server.host)).rejects.toMatchObject({ code: "rate_limited", retryAfterMs: 21_600_000 });
    expect(server.requests).toHaveLength(1);
  });

  test("again and again is asked by one at a time, and by all when it works again", async () => {
    const server = await serve(() => (working ? manifest : { status: 500 }));
    let working = false;
    const policy = { trialEveryMs: 40, attemptsMax: 5 };
    const repository = repositoryAt(server.host, { policy });
    await expect(repository.headManifest("1", signal)).rejects.toMatchObject({ code: "unreachable" });
    const [before, startMs] = [server.requests.length, performance.now()];
    const asked = Array.from({ length: 20 }, () => repository.headManifest("1", signal));
    await Promise.race(asked).catch(() => undefined);
    const tookMs = performance.now() - startMs;
    expect(server.requests.length - before).toBeLessThanOrEqual(1 + tookMs / policy.trialEveryMs);
    working = true;
    const ended = await Promise.allSettled(asked);
    expect(ended.filter(({ status }) => status === "fulfilled").length).toBeGreaterThanOrEqual(15);
  });
});
