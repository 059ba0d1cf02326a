import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { ConfigError, makeConfig, readConfig } from "./config.ts";
import { defaultIndexLimits, limitName, settableLimits } from "./index/limits.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "oci-node-config-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function refusal(text: string, mode = 0o600): ConfigError {
  const path = join(folder, "config.toml");
  writeFileSync(path, text);
  chmodSync(path, mode);
  try {
    readConfig(path);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

describe("a configuration file", () => {
  test("may leave everything out", () => {
    const config = makeConfig({});
    expect(config.data_dir).toBe("/var/lib/oci-node");
    expect(config.keyFile).toBe("/var/lib/oci-node/key");
    expect(config.worker.background_fetch).toBe(true);
    expect(config.registry.insecure).toEqual([]);
  });

  test("places what it does not name below the data folder", () => {
    const path = join(folder, "config.toml");
    writeFileSync(
      path,
      'data_dir = "/data"\n[worker]\ncache_quota = "20Gi"\n[gateway]\nlisten = "[::1]:7070"\n',
    );
    const config = readConfig(path);
    expect(config.cacheDir).toBe("/data/cache");
    expect(config.worker.cache_quota).toBe(20 * 1024 ** 3);
    expect(config.gateway.listen).toEqual({ host: "::1", port: 7070 });
  });

  test("names mirrors by their URLs, with what they need", () => {
    const path = join(folder, "config.toml");
    const mirrors = '["https://m.lan:5000/cache", { url = "http://s.lan:30020", ns = true }]';
    writeFileSync(path, `[registry.mirrors]\n"docker.io" = ${mirrors}\n`);
    expect(readConfig(path).registry.mirrors).toEqual({
      "docker.io": ["https://m.lan:5000/cache", { url: "http://s.lan:30020", ns: true }],
    });
    for (const bad of ["mirror.lan", "ftp://mirror.lan", "https://user:pw@mirror.lan", "https://m.lan/?ns=x"])
      expect(refusal(`[registry.mirrors]\n"docker.io" = ["${bad}"]\n`)).toMatchObject({ code: "invalid" });
  });

  test("sets the limits of indexing, as numbers or sizes, within what the formats can take", () => {
    const path = join(folder, "config.toml");
    writeFileSync(path, '[index.limits]\ntar_bytes_max = "512Gi"\nentries_max = 1000\n');
    const { indexLimits } = readConfig(path);
    expect(indexLimits).toEqual({ ...defaultIndexLimits, tarBytesMax: 512 * 1024 ** 3, entriesMax: 1000 });
    expect(makeConfig({}).indexLimits).toEqual(defaultIndexLimits);
    expect(refusal('[index.limits]\nspan_bytes_max = "2Gi"\n').message).toContain(
      "limits.span_bytes_max: must be",
    );
    expect(refusal("[index.limits]\nentries_max = 0\n").message).toContain("limits.entries_max: must be");
    expect(refusal('[index.limits]\nentries_max = "many"\n').message).toContain(
      "limits.entries_max: must be",
    );
    expect(refusal("[index.limits]\nname_bytes_max = 300\n").message).toContain("name_bytes_max");
  });

  test("takes the deadline of reads as a time", () => {
    const path = join(folder, "config.toml");
    writeFileSync(path, '[worker]\nread_deadline = "1.5m"\n');
    expect(readConfig(path).worker.read_deadline).toBe(90_000);
    for (const wrong of ["0s", "30", "25h", "soon"])
      expect(refusal(`[worker]\nread_deadline = "${wrong}"\n`).message).toContain("worker.read_deadline");
  });

  test("is refused by field when one is not known", () => {
    const error = refusal("[worker]\nmemry = 1\n");
    expect(error.code).toBe("invalid");
    expect(error.message).toContain("config.toml: worker");
    expect(error.message).toContain("memry");
  });

  test("is refused by field when a value is of the wrong kind", () => {
    expect(refusal('[gateway]\nlisten = "7070"\n').message).toContain("gateway.listen: must be HOST:PORT");
    expect(refusal('[worker]\ncache_quota = "much"\n').message).toContain("worker.cache_quota");
  });

  test.each([
    ['[registry.hosts."h.lan"]\ninsecur = true', 'registry.hosts."h.lan".insecur: there is no such setting'],
    ['[registry.hosts."h.lan"]\ninsecure = "yes"', 'registry.hosts."h.lan".insecure: must be true or false'],
    ['[registry.hosts."h.lan"]\nrealms = "a.lan"', 'registry.hosts."h.lan".realms: must be a list'],
    ["[registry]\nproxy = 3128", 'registry.proxy: must be "none", or a URL such as http://proxy.lan:3128'],
    ["[registry]\nconnections_per_host = 0", "registry.connections_per_host: must be more than 0"],
    ['[identities.x]\ntype = "awz"', 'identities.x.type: must be "aws", "gcp", "azure" or "plugin"'],
    [
      '[identities.x]\ntype = "aws"',
      'identities.x.source: must be "instance", "container" or "web_identity"',
    ],
    ['[identities.x]\ntype = "plugin"\ncommand = ["/x"]', "identities.x.match_images: is missing"],
    ['[identities."X Y"]\ntype = "aws"', 'identities."X Y": must be a short name'],
    ["[identity]\nissuer = 5", 'identity.issuer: must be text in quotes, such as "…"'],
    ['[workspaces.default]\ncredential_delivery = "x"', 'credential_delivery: must be "minted" or "sealed"'],
    ['[worker]\ntls_key_file = "/k"', "worker.tls_key_file: is not needed any more"],
    ['[scheduler]\ntls_cert_file = "/c"', "scheduler.tls_cert_file: is not needed any more"],
    ['[worker]\nscheduler_url = "http://s:7071"', "worker.scheduler_url: must be a URL such as https://"],
    ['[worker]\nlisten = "0.0.0.0:7072"', "worker.listen: must be an address that schedulers reach"],
    ["[registries]", "config.toml: registries: there is no such setting"],
  ])("%p is refused in plain words: %s", (text, told) => {
    expect(refusal(`${text}\n`).message).toContain(told);
  });

  test("is refused by line when it is no TOML", () => {
    expect(refusal("gateway = [\n")).toMatchObject({ code: "syntax" });
    const [before, after] = ['data_dir = "/d"\n\n[gateway]\n', '\n[worker]\nname = "w"\n'];
    for (const wrong of ['listen = "a', "listen = [1,\n2", "listen"])
      expect(refusal(before + wrong + after).message).toContain("config.toml: line 4: not TOML: ");
    expect(refusal(`${before}listen = 1\nlisten = 2\n${after}`).message).toContain("line 5: ");
  });

  test("is refused when others may write it", () => {
    expect(refusal("", 0o666).code).toBe("loose_mode");
  });

  test.each([
    ["database.url", '[database]\nurl = "postgres://me:hunter2@db.lan/oci"'],
    ["registry.proxy", '[registry]\nproxy = "http://me:hunter2@proxy.lan:3128"'],
    ['registry.hosts."a.lan".proxy', '[registry.hosts."a.lan"]\nproxy = "http://me:hunter2@proxy.lan:3128"'],
    [
      "identities.any.env",
      '[identities.any]\ntype = "plugin"\ncommand = ["/bin/p"]\nmatch_images = ["*.lan"]\nenv = { KEY = "hunter2" }',
    ],
  ])("with a secret in %s is refused when everybody may read it", (name, text) => {
    const error = refusal(text, 0o644);
    expect(error.code).toBe("loose_mode");
    expect(error.message).toContain(`${name} holds a secret`);
    expect(error.message).not.toContain("hunter2");
    const path = join(folder, "config.toml");
    chmodSync(path, 0o640);
    expect(() => readConfig(path)).not.toThrow();
    const without = text.replace(":hunter2@", "@").replace(/env = .*/, "");
    writeFileSync(path, without);
    chmodSync(path, 0o644);
    expect(() => readConfig(path)).not.toThrow();
  });

  test("that is not there is named", () => {
    expect(() => readConfig(join(folder, "none.toml"))).toThrow("none.toml: cannot be read (ENOENT)");
  });
});

test("folders are taken from where the node was started, whatever folder its own processes work in", () => {
  const config = makeConfig({ data_dir: "data", worker: { cache_dir: "cache" } });
  expect([config.data_dir, config.indexDir, config.cacheDir, config.stateDir]).toEqual(
    ["data", "data/index", "cache", "data/worker"].map((path) => resolve(path)),
  );
});

test("OPERATING.md lists every limit of indexing with its default", () => {
  const operating = readFileSync(join(import.meta.dir, "../OPERATING.md"), "utf8");
  const block = /\n(\[index\.limits\][\s\S]*?)\n\n/.exec(operating)?.[1] ?? "";
  const path = join(folder, "config.toml");
  writeFileSync(path, block);
  const listed = [...block.matchAll(/^(\w+) =/gm)].map((match) => match[1] ?? "");
  expect(listed.sort()).toEqual(settableLimits.map(limitName).sort());
  expect(readConfig(path).indexLimits).toEqual(defaultIndexLimits);
});

describe("identities", () => {
  test("of a workspace must be among those of the node, and both are named", () => {
    const error = refusal('[workspaces.acme]\nidentities = ["prod-ecr"]\n');
    expect(error.message).toContain("workspaces.acme.identities[0]: the workspace acme");
    expect(error.message).toContain("the identity prod-ecr, which [identities] does not have");
  });

  test("a default one must be among those that the workspace was given", () => {
    const identities = '[identities.prod]\ntype = "gcp"\nsource = "metadata"\n';
    const error = refusal(`${identities}[workspaces.acme]\ndefault_identity = "prod"\n`);
    expect(error.message).toContain("workspaces.acme.default_identity: the identity prod");
    const given = { identities: ["prod"], default_identity: "prod" };
    const { workspaces } = makeConfig({
      identities: { prod: { type: "gcp", source: "metadata" } },
      workspaces: { acme: given },
    });
    expect(workspaces["acme"]).toMatchObject(given);
  });

  test.each([
    ['type = "aws"\nsource = "web_identity"\nweb_identity_token_file = "/t"', "role_arn"],
    ['type = "aws"\nsource = "container"', "container_credentials_uri"],
    ['type = "azure"\nsource = "workload"\nclient_id = "i"\ntoken_file = "/t"', "tenant_id"],
    ['type = "plugin"\ncommand = ["plugin"]\nmatch_images = ["a.test"]', "command"],
  ])("%p lacks %s", (lines, field) => {
    expect(refusal(`[identities.x]\n${lines}\n`).message).toContain(`identities.x.${field}: `);
  });

  test("a plugin's patterns are those of the kubelet", () => {
    const plugin = (pattern: string) =>
      `[identities.x]\ntype = "plugin"\ncommand = ["/bin/plugin"]\nmatch_images = ["${pattern}"]\n`;
    expect(refusal(plugin("not a pattern")).message).toContain(
      "identities.x.match_images[0]: must be a pattern",
    );
  });

  test("the issuer is an https URL that clouds can compare letter by letter", () => {
    for (const bad of [
      "http://id.test",
      "id.test",
      "https://id.test/",
      "https://id.test/?a",
      "https://u@id.test",
      "https://id.test/a#b",
      "https://ID.test",
    ])
      expect(refusal(`[identity]\nissuer = "${bad}"\n`).message).toContain("identity.issuer: ");
    for (const issuer of ["https://id.test", "https://id.test:8443/node"])
      expect(makeConfig({ identity: { issuer } }).identity.issuer).toBe(issuer);
  });
});
