import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { makeConfig, type Settings } from "../config.ts";
import type { RegistryPolicy } from "../registry/policy.ts";
import { registryPolicy } from "./registry-client.ts";

const policyOf = (registry: Settings["registry"], env: Record<string, string> = {}): RegistryPolicy =>
  registryPolicy(makeConfig({ registry }).registry, env);

describe("the registry section", () => {
  test("adds what is said of one host to what is said of all", () => {
    const policy = policyOf({
      insecure: ["A.lan:5000"],
      private: ["b.lan"],
      realms: { "c.lan": ["auth.c.lan"] },
      hosts: {
        "D.lan": { insecure: true, connections: 2 },
        "c.lan": { private: true, realms: ["Auth2.c.lan:8443"], mirrors: ["https://m.lan/c"] },
      },
      mirrors: { "c.lan": ["https://all.lan"], "quay.io": [{ url: "http://q.lan", ns: true }] },
    });
    expect([...policy.insecureHosts]).toEqual(["a.lan:5000", "d.lan"]);
    expect([...policy.privateHosts]).toEqual(["b.lan", "c.lan"]);
    expect(policy.realmHosts?.get("c.lan")).toEqual(["auth.c.lan", "auth2.c.lan:8443"]);
    expect(policy.hosts?.get("d.lan")).toEqual({ connections: 2 });
    expect(policy.mirrors?.get("c.lan")?.map(({ url }) => url.href)).toEqual(["https://m.lan/c"]);
    expect(policy.mirrors?.get("quay.io")).toEqual([{ url: new URL("http://q.lan"), namespaced: true }]);
  });

  test("knows Docker Hub by all of its names, and where its requests go", () => {
    for (const name of ["docker.io", "index.docker.io", "registry-1.docker.io"]) {
      const { hosts, insecureHosts, mirrors } = policyOf({
        hosts: { [name]: { connect: "http://127.0.0.1:5000", insecure: true, mirrors: ["https://m.lan"] } },
      });
      expect(hosts?.get("registry-1.docker.io")?.connect).toEqual(new URL("http://127.0.0.1:5000"));
      expect([...insecureHosts]).toEqual(["docker.io", "registry-1.docker.io"]);
      expect([...(mirrors?.keys() ?? [])]).toEqual(["docker.io"]);
    }
  });

  test("reads the authorities of a host", () => {
    const directory = mkdtempSync(join(tmpdir(), "oci-node-ca-"));
    try {
      const path = join(directory, "ca.pem");
      const hosts = { "a.lan": { ca_file: path } };
      const certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
      writeFileSync(path, certificate);
      expect(policyOf({ hosts }).hosts?.get("a.lan")).toEqual({ ca: certificate });
      writeFileSync(path, "-----BEGIN PRIVATE KEY-----\n");
      expect(() => policyOf({ hosts })).toThrow(/a\.lan"\.ca_file: there is no certificate in .*ca\.pem/);
      expect(() => policyOf({ hosts: { "a.lan": { ca_file: join(directory, "none") } } })).toThrow(
        /registry\.hosts\."a\.lan"\.ca_file: .* cannot be read/,
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test("takes the environment's proxies only where it says nothing of proxies itself", () => {
    const env = { HTTPS_PROXY: "http://env:1", NO_PROXY: "a.lan" };
    const shown = (policy: RegistryPolicy) => [policy.proxies?.https?.expose().href, policy.proxies?.except];
    expect(shown(policyOf({}, env))).toEqual(["http://env:1/", ["a.lan"]]);
    expect(shown(policyOf({ proxy: "http://set:1" }, env))).toEqual(["http://set:1/", []]);
    expect(shown(policyOf({ proxy: "none" }, env))).toEqual([undefined, []]);
    expect(() => policyOf({}, { HTTPS_PROXY: "socks5://me:secret@p" })).toThrow(
      /^the environment's HTTPS_PROXY is not/,
    );
    const { hosts } = policyOf({
      hosts: { "a.lan": { proxy: "http://me:secret@p:1" }, "b.lan": { proxy: "none" } },
    });
    expect(hosts?.get("b.lan")).toEqual({ proxy: "none" });
    expect(inspect(hosts, { depth: 9 })).not.toContain("secret");
  });

  test.each([
    ["connect and proxy", { hosts: { "a.lan": { connect: "http://127.0.0.1:1", proxy: "http://p:1" } } }],
    ["registry.hosts", { hosts: { "https://a.lan": {} } }],
    ["registry.hosts", { hosts: { "a.lan/team": {} } }],
    ["registry.hosts", { hosts: { "0x7f.1": {} } }],
    ["registry.hosts", { hosts: { "docker.io": {}, "index.docker.io": {} } }],
    ["registry.hosts", { hosts: { "a.lan": { realms: ["https://auth.lan/token"] } } }],
    ["registry.insecure", { insecure: ["http://a.lan"] }],
    ["registry.private", { private: ["a.lan:99999"] }],
    ["registry.realms", { realms: { "a.lan": ["user@auth.lan"] } }],
    ["registry.mirrors", { mirrors: { "a lan": ["https://m.lan"] } }],
    ['registry.hosts."a.lan".connect', { hosts: { "a.lan": { connect: "http://127.0.0.1:5000/path" } } }],
    ['registry.hosts."a.lan".connect', { hosts: { "a.lan": { connect: "http://me:pw@127.0.0.1:5000" } } }],
  ])("is refused by the name %s when a host in it is none", (name, settings) => {
    expect(() => policyOf(settings)).toThrow(name);
  });
});
