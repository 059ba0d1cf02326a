import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { Redacted } from "../std/redacted.ts";
import { run } from "../std/spawn.ts";
import { type Certificate, makeCertificate } from "./certificate.test-kit.ts";
import { RegistryClient } from "./client.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import type { RegistryPolicy } from "./policy.ts";
import { startProxy, type TestProxy } from "./proxy.test-kit.ts";
import { type Proxies, proxiesFromEnvironment, proxyBefore, proxyForAll } from "./proxy.ts";
import { basicProvider, repositoryAt, virtualClock } from "./quirks.test-kit.ts";
import { type RawServer, startRawServer } from "./raw-server.test-kit.ts";

const signal = new AbortController().signal;
const image = makeImage();
const headers = { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest };

describe("through a proxy", () => {
  let own: Certificate;
  let registry: Bun.Server<undefined>;
  let plain: RawServer;
  let proxy: TestProxy;
  const seen: Headers[] = [];

  beforeAll(async () => {
    own = await makeCertificate("registry.example", "store.example");
    registry = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      tls: { key: own.key, cert: own.certificate },
      fetch: (request) => {
        seen.push(request.headers);
        if (!request.headers.has("authorization"))
          return new Response(null, { status: 401, headers: { "WWW-Authenticate": 'Basic realm="r"' } });
        return new Response(null, { headers: { ...headers, "Content-Length": String(image.manifest.size) } });
      },
    });
    plain = await startRawServer(() => ({ status: 200, headers, body: image.manifestBytes }));
    const ports = new Map([
      ["registry.example:443", registry.port ?? 0],
      ["wrong.example:443", registry.port ?? 0],
      ["plain.example", Number(plain.host.split(":")[1])],
    ]);
    proxy = await startProxy(ports, { password: "proxy-pw" });
  });
  afterAll(async () => {
    await registry.stop(true);
    await plain.stop();
    await proxy.stop();
  });
  beforeEach(() => {
    seen.length = 0;
  });

  const through = (url = withUser(proxy.url)): Proxies => proxyForAll(url);
  function withUser(url: URL, password = "proxy-pw"): URL {
    return Object.assign(new URL(url), { username: "proxy@user", password });
  }
  const looked: string[] = [];
  const addresses: Record<string, string[]> = {
    "registry.example": ["8.8.8.8"],
    "inside.example": ["10.0.0.7"],
    "mixed.example": ["8.8.8.8", "10.0.0.7"],
  };
  const resolveHost = async (name: string): Promise<string[]> => {
    looked.push(name);
    const found = addresses[name];
    if (found === undefined) throw Object.assign(new Error("no such name"), { code: "ENOTFOUND" });
    return found;
  };
  const head = (host: string, policy: Partial<RegistryPolicy> = {}): Promise<unknown> =>
    repositoryAt(host, {
      clock: virtualClock(),
      resolveHost,
      provider: basicProvider(host, "the-password"),
      policy: {
        insecureHosts: new Set(),
        attemptsMax: 1,
        ca: own.certificate,
        proxies: through(),
        ...policy,
      },
    }).headManifest("1", signal);

  test("a registry is asked by its name, inside TLS that is its own", async () => {
    const before = proxy.requests.length;
    expect(await head("registry.example")).toEqual(image.manifest);
    const [request] = proxy.requests.slice(before);
    expect(request?.line).toBe("CONNECT registry.example:443 HTTP/1.1");
    expect(seen.at(-1)?.get("host")).toBe("registry.example");
    expect(seen.at(-1)?.get("authorization")).toBe(`Basic ${btoa("alice:the-password")}`);
    // The proxy's own password goes to the proxy, the registry's to the registry.
    expect(seen.some((one) => one.has("proxy-authorization"))).toBe(false);
    expect(proxy.received()).not.toContain(btoa("alice:the-password"));
  });

  test.each([
    ["with another name's certificate", "wrong.example", {}],
    ["with a certificate of nobody known", "registry.example", { ca: undefined }],
  ])("a registry %s is refused", async (_, host, policy) => {
    await expect(head(host, policy as Partial<RegistryPolicy>)).rejects.toMatchObject({
      code: "tls",
      message: expect.stringContaining(host),
    });
    expect(seen).toEqual([]);
  });

  test("a name that cannot be looked up here is the proxy's to look up", async () => {
    const { "registry.example": kept, ...others } = addresses;
    delete addresses["registry.example"];
    try {
      looked.length = 0;
      const repository = repositoryAt("registry.example", {
        resolveHost,
        provider: basicProvider("registry.example", "pw"),
        policy: { insecureHosts: new Set(), ca: own.certificate, proxies: through() },
      });
      await repository.headManifest("1", signal);
      await repository.headManifest("1", signal);
      expect(looked).toEqual(["registry.example"]);
    } finally {
      Object.assign(addresses, others, { "registry.example": kept });
    }
  });

  test.each([
    ["10.0.0.1"],
    ["[::ffff:a00:1]"],
    ["inside.example"],
    ["mixed.example"],
    ["intranet.local"],
    ["metadata.google.internal"],
    ["router.home.arpa"],
  ])("%s is refused before the proxy is asked", async (host) => {
    const before = proxy.requests.length;
    await expect(head(host)).rejects.toMatchObject({ code: "egress_refused" });
    await expect(head(`${host}:8443`)).rejects.toMatchObject({ code: "egress_refused" });
    expect(proxy.requests).toHaveLength(before);
  });

  test("a private host is asked when the operator lists it", async () => {
    const before = proxy.requests.length;
    // The proxy of these tests knows no such host: it is asked, and says no.
    await expect(head("inside.example", { privateHosts: new Set(["inside.example"]) })).rejects.toMatchObject(
      {
        code: "unreachable",
        message: expect.stringContaining("(403)"),
      },
    );
    expect(proxy.requests).toHaveLength(before + 1);
  });

  test("a host with plain HTTP is asked by its name", async () => {
    const insecureHosts = new Set(["plain.example"]);
    expect(await head("plain.example", { insecureHosts })).toEqual(image.manifest);
    expect(plain.requests.at(-1)?.headers.get("host")).toBe("plain.example");
    expect(proxy.requests.at(-1)?.line).toStartWith("HEAD http://plain.example/v2/");
  });

  test("a proxy that does not connect is named as the reason, without its answer and its password", async () => {
    const wrong = through(withUser(proxy.url, "wrong-pw"));
    for (const [host, proxies, status] of [
      ["registry.example", wrong, "407"],
      ["unknown.example", through(), "403"],
    ] as const) {
      const error: unknown = await head(host, { proxies }).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({
        code: "unreachable",
        message: `the node's proxy does not connect to ${host} (${status})`,
      });
      expect(inspect(error)).not.toMatch(/-pw|by-the-proxy|evil/);
    }
    const gone = await startProxy(new Map());
    await gone.stop();
    const error: unknown = await head("registry.example", { proxies: through(withUser(gone.url)) }).catch(
      (e: unknown) => e,
    );
    expect(error).toMatchObject({
      code: "unreachable",
      message: expect.stringContaining("through the node's proxy"),
    });
    expect(inspect(error)).not.toMatch(/-pw/);
  });

  test("one host may have a proxy of its own, or none", async () => {
    const other = await startProxy(new Map([["registry.example:443", registry.port ?? 0]]));
    try {
      const before = proxy.requests.length;
      const hosts = new Map([["registry.example", { proxy: new Redacted(other.url) }]]);
      expect(await head("registry.example", { hosts })).toEqual(image.manifest);
      expect([other.requests.length, proxy.requests.length - before]).toEqual([1, 0]);
      addresses["registry.example"] = ["127.0.0.1"];
      const host = `registry.example:${registry.port}`;
      const none = { hosts: new Map([[host, { proxy: "none" as const }]]), privateHosts: new Set([host]) };
      expect(await head(host, none)).toEqual(image.manifest);
      const elsewhere = { connect: new URL(`https://127.0.0.1:${registry.port}`) };
      expect(await head("registry.example", { hosts: new Map([["registry.example", elsewhere]]) })).toEqual(
        image.manifest,
      );
      expect([other.requests.length, proxy.requests.length - before]).toEqual([1, 0]);
    } finally {
      addresses["registry.example"] = ["8.8.8.8"];
      await other.stop();
    }
  });

  test("a proxy that is spoken to over TLS must show its own certificate", async () => {
    const certificate = await makeCertificate("localhost");
    const secure = await startProxy(new Map([["registry.example:443", registry.port ?? 0]]), { certificate });
    try {
      const ca = own.certificate + certificate.certificate;
      const proxies = proxyForAll(secure.url);
      expect(await head("registry.example", { proxies, ca })).toEqual(image.manifest);
      expect(secure.requests).toHaveLength(1);
      await expect(head("registry.example", { proxies })).rejects.toMatchObject({
        code: "tls",
        message: expect.stringContaining("or that of the node's proxy"),
      });
      expect(secure.requests).toHaveLength(1);
    } finally {
      await secure.stop();
    }
  });

  test("issuers are asked, metadata services are not", async () => {
    const client = new RegistryClient({
      policy: { insecureHosts: new Set(), privateHosts: new Set(), ca: own.certificate, proxies: through() },
      resolveHost,
    });
    expect(
      (await client.issuerFetch("https://registry.example/", { method: "POST", body: "b" })).status,
    ).toBe(401);
    const before = proxy.requests.length;
    const leaving = new AbortController();
    const asked = client.metadataFetch(`http://metadata.google.internal/`, { signal: leaving.signal });
    await expect(asked).rejects.toMatchObject({ code: "unreachable" });
    expect(looked.at(-1)).toBe("metadata.google.internal");
    expect(proxy.requests).toHaveLength(before);
  });

  test("of the environment nothing goes unless the operator's settings say so", async () => {
    const script = `
      const { RegistryClient } = await import(${JSON.stringify(`${import.meta.dir}/client.ts`)});
      const { anonymousProvider } = await import(${JSON.stringify(`${import.meta.dir}/../credential/provider.ts`)});
      const { parseReference } = await import(${JSON.stringify(`${import.meta.dir}/../reference/reference.ts`)});
      const host = "plain.example";
      const client = new RegistryClient({ policy: {
        insecureHosts: new Set([host]), privateHosts: new Set(),
        hosts: new Map([[host, { connect: new URL("http://${plain.host}") }]]) } });
      const found = await client.repository(parseReference(host + "/a/b:1"), anonymousProvider(host))
        .headManifest("1", new AbortController().signal);
      console.log(found.digest);`;
    const before = proxy.requests.length;
    const url = proxy.url.href;
    const env = { HTTP_PROXY: url, HTTPS_PROXY: url, http_proxy: url, https_proxy: url, ALL_PROXY: url };
    const { stdout } = await run([process.execPath, "-e", script], { env });
    expect(stdout.toString().trim()).toBe(image.manifest.digest);
    expect(proxy.requests).toHaveLength(before);
  });
});

describe("the environment's proxies", () => {
  const shown = (env: Record<string, string>, url: string): string | undefined =>
    proxyBefore(proxiesFromEnvironment(env), new URL(url))?.expose().href;

  test.each([
    [{ HTTPS_PROXY: "http://p:1" }, "https://a.example", "http://p:1/"],
    [{ HTTPS_PROXY: "http://p:1" }, "http://a.example", undefined],
    [{ HTTP_PROXY: "p.lan:3128" }, "http://a.example", "http://p.lan:3128/"],
    [{ https_proxy: "http://low:1", HTTPS_PROXY: "http://up:1" }, "https://a.example", "http://low:1/"],
    [{ ALL_PROXY: "http://all:1", HTTP_PROXY: "http://p:1" }, "https://a.example", "http://all:1/"],
    [{ ALL_PROXY: "socks5://all:1" }, "https://a.example", undefined],
    [{ HTTPS_PROXY: "" }, "https://a.example", undefined],
  ])("%p for %s are %p", (env, url, expected) => {
    expect(shown(env as unknown as Record<string, string>, url)).toBe(expected as string);
  });

  test("that are none are refused by their name, not by their value", () => {
    expect(() => proxiesFromEnvironment({ HTTPS_PROXY: "socks5://me:secret@p:1" })).toThrow(/^HTTPS_PROXY$/);
  });

  test.each([
    ["*", "https://a.example", true],
    ["a.example", "https://a.example", true],
    ["a.example", "https://b.a.example:8443", true],
    ["a.example", "https://nota.example", false],
    ["a.example", "https://a.example.evil.com", false],
    ["A.Example", "https://a.example", true],
    [".a.example", "https://b.a.example", true],
    [".a.example", "https://a.example", false],
    ["*.a.example", "https://b.a.example", true],
    ["a.example:443", "https://a.example", true],
    ["a.example:5000", "https://a.example", false],
    ["x, a.example", "https://a.example", true],
    ["10.0.0.0/8", "https://10.1.2.3", true],
    ["10.0.0.0/8", "https://11.1.2.3", false],
    ["10.0.0.0/99", "https://10.1.2.3", false],
    ["10.1.2.3:5000", "https://10.1.2.3:5000", true],
    ["fd00::/8", "https://[fd00::1]", true],
    ["fd00::1", "https://[fd00::1]", true],
    ["[fd00::1]:5000", "https://[fd00::1]:5001", false],
    ["", "https://localhost:5000", true],
    ["", "https://127.0.0.2", true],
    ["", "https://[::1]:5000", true],
    ["", "https://127.0.0.2.evil.example", false],
  ])("with NO_PROXY=%s and %s: directly is %p", (list, url, directly) => {
    expect(shown({ HTTPS_PROXY: "http://p:1", NO_PROXY: list }, url) === undefined).toBe(directly);
  });

  test("show no password when they are printed", () => {
    const proxies = proxiesFromEnvironment({ HTTPS_PROXY: "http://me:secret@p:1" });
    expect(inspect(proxies, { depth: 9 }) + JSON.stringify(proxies)).not.toContain("secret");
  });
});
