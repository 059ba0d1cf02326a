import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import { type Certificate, makeCertificate } from "./certificate.test-kit.ts";
import { mediaTypes } from "./descriptor.ts";
import { makeImage } from "./image.test-kit.ts";
import type { RegistryPolicy } from "./policy.ts";
import { basicProvider, repositoryAt } from "./quirks.test-kit.ts";
import { type RawReply, type RawServer, startRawServer } from "./raw-server.test-kit.ts";

const signal = new AbortController().signal;
const image = makeImage();
const manifest: RawReply = {
  status: 200,
  headers: { "content-type": mediaTypes.ociManifest, "docker-content-digest": image.manifest.digest },
  body: image.manifestBytes,
};
const registry = "registry.example";
/** What is told of no name but the one that the operator gave. */
const resolveHost = async (name: string): Promise<string[]> =>
  name === "fake.lan" ? ["127.0.0.1"] : ["10.0.0.1"];

describe("a host that the operator says is elsewhere", () => {
  let server: RawServer;
  let answer: (path: string, authorization: string | null) => RawReply;
  beforeAll(async () => {
    server = await startRawServer(({ url, headers }) => answer(url.pathname, headers.get("authorization")));
  });
  afterAll(() => server.stop());
  beforeEach(() => {
    answer = () => manifest;
  });

  const there = (names: readonly string[], origin = `http://${server.host}`): Partial<RegistryPolicy> => ({
    insecureHosts: new Set(),
    hosts: new Map(names.map((name) => [name, { connect: new URL(origin) }])),
  });
  const head = (policy: Partial<RegistryPolicy>, name = registry): Promise<unknown> =>
    repositoryAt(name, {
      policy: { attemptsMax: 1, ...policy },
      resolveHost,
      provider: basicProvider(name, "pw"),
    }).headManifest("1", signal);

  test("is asked there, under its own name", async () => {
    expect(await head(there([registry]))).toEqual(image.manifest);
    expect(server.requests.at(-1)?.headers.get("host")).toBe(registry);
  });

  test("may be named by a host that has to be looked up, at a private address", async () => {
    const port = server.host.split(":")[1];
    expect(await head(there([registry], `http://fake.lan:${port}`))).toEqual(image.manifest);
  });

  test("is one with its port only", async () => {
    const before = server.requests.length;
    const elsewhere = head(there([registry]), `${registry}:8443`);
    await expect(elsewhere).rejects.toMatchObject({ code: "egress_refused" });
    expect(server.requests).toHaveLength(before);
    expect(await head(there([`${registry}:8443`]), `${registry}:8443`)).toEqual(image.manifest);
    expect(server.requests.at(-1)?.headers.get("host")).toBe(`${registry}:8443`);
  });

  test("has its token service where the operator says, too, and the credential goes along", async () => {
    const seen: (string | null)[] = [];
    const challenge = { "www-authenticate": `Bearer realm="https://auth.example/token",service="s"` };
    answer = (path, authorization) => {
      if (path === "/token") {
        seen.push(authorization);
        return { status: 200, body: JSON.stringify({ token: "made" }) };
      }
      return authorization === "Bearer made" ? manifest : { status: 401, headers: challenge };
    };
    const realmHosts = new Map([[registry, ["auth.example"]]]);
    expect(await head({ ...there([registry, "auth.example"]), realmHosts })).toEqual(image.manifest);
    expect(seen).toEqual([`Basic ${btoa("alice:pw")}`]);
  });

  test("may be asked by fewer requests at once than others", async () => {
    let [under, most] = [0, 0];
    const busy = await startRawServer(async () => {
      under += 1;
      most = Math.max(most, under);
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      under -= 1;
      return manifest;
    });
    try {
      const connect = new URL(`http://${busy.host}`);
      const policy = { insecureHosts: new Set<string>() };
      const hosts = new Map([[registry, { connect, connections: 2 }]]);
      const repository = repositoryAt(registry, { policy: { ...policy, hosts }, resolveHost });
      await Promise.all(Array.from({ length: 8 }, () => repository.headManifest("1", signal)));
      expect(most).toBe(2);
    } finally {
      await busy.stop();
    }
  });

  test("is HTTPS by name: it may not redirect to plain HTTP", async () => {
    const before = server.requests.length;
    answer = () => ({ status: 307, headers: { location: `http://${registry}/elsewhere` } });
    await expect(head(there([registry]))).rejects.toMatchObject({ code: "egress_refused" });
    expect(server.requests).toHaveLength(before + 1);
  });

  test("is followed to when another host redirects to it, without the credential", async () => {
    answer = (path) =>
      path === "/signed" ? manifest : { status: 307, headers: { location: "https://store.example/signed" } };
    expect(await head(there([registry, "store.example"]))).toEqual(image.manifest);
    const last = server.requests.at(-1)?.headers;
    expect([last?.get("host"), last?.get("authorization")]).toEqual(["store.example", null]);
  });
});

describe("a host with TLS elsewhere", () => {
  let server: Bun.Server<undefined>;
  let own: Certificate;
  beforeAll(async () => {
    own = await makeCertificate(registry, "other.example");
    server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      tls: { key: own.key, cert: own.certificate },
      fetch: () =>
        new Response(null, {
          headers: { ...manifest.headers, "Content-Length": String(image.manifest.size) },
        }),
    });
  });
  afterAll(() => server.stop(true));

  const head = (name: string, hosts: RegistryPolicy["hosts"]): Promise<unknown> =>
    repositoryAt(name, {
      policy: { attemptsMax: 1, insecureHosts: new Set(), hosts: hosts ?? new Map() },
      resolveHost,
    }).headManifest("1", signal);

  test("must show a certificate of its own name, by an authority that may be of this host alone", async () => {
    const connect = new URL(`https://127.0.0.1:${server.port}`);
    const ca = own.certificate;
    expect(await head(registry, new Map([[registry, { connect, ca }]]))).toEqual(image.manifest);
    for (const [name, settings] of [
      ["stranger.example", { connect, ca }],
      [registry, { connect }],
    ] as const) {
      await expect(head(name, new Map([[name, settings]]))).rejects.toMatchObject({ code: "tls" });
    }
    // Its authority is nobody else's.
    const both = new Map([
      [registry, { connect, ca }],
      ["other.example", { connect }],
    ]);
    expect(await head(registry, both)).toEqual(image.manifest);
    await expect(head("other.example", both)).rejects.toMatchObject({ code: "tls" });
  });

  test("is trusted by what the node's environment adds, too, where it has authorities of its own", async () => {
    const directory = await mkdtemp(join(tmpdir(), "oci-node-ca-"));
    try {
      const file = join(directory, "extra.pem");
      await writeFile(file, own.certificate);
      const other = await makeCertificate("other.test");
      const script = `
        const { RegistryClient } = await import(${JSON.stringify(`${import.meta.dir}/client.ts`)});
        const client = new RegistryClient({ policy: {
          insecureHosts: new Set(), privateHosts: new Set(), ca: ${JSON.stringify(other.certificate)},
          hosts: new Map([["${registry}", { connect: new URL("https://127.0.0.1:${server.port}") }]]) } });
        console.log((await client.issuerFetch("https://${registry}/", {})).status);`;
      const { stdout } = await run([process.execPath, "-e", script], { env: { NODE_EXTRA_CA_CERTS: file } });
      expect(stdout.trim()).toBe("200");
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
