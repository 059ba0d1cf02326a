import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkConfig } from "./doctor-config.ts";

let folder: string;
let issuers: Bun.Server<undefined>;
let open: Server;
let openPort: number;
let closedPort: number;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "oci-node-doctor-"));
  issuers = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: ({ url }) => {
      if (url.includes("/broken/")) return new Response("not here", { status: 404 });
      return Response.json({ issuer: "https://id.acme.example/node" });
    },
  });
  open = createServer((socket) => socket.end());
  openPort = await portOf(open);
  const closed = createServer();
  closedPort = await portOf(closed);
  closed.close();
});
afterAll(async () => {
  open.close();
  await issuers.stop(true);
  rmSync(folder, { recursive: true });
});

function portOf(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port));
  });
}

async function findings(text: string, env: Record<string, string> = {}) {
  const path = join(folder, "config.toml");
  writeFileSync(path, text, { mode: 0o600 });
  return (await checkConfig(path, env)).filter(({ found }) => found !== path);
}

const issuer = (url: string) => `
[identity]
issuer = "${url}"
[registry.hosts."id.acme.example"]
connect = "http://127.0.0.1:${issuers.port}"
`;

describe("of a configuration, doctor says", () => {
  test("what is wrong in it, by file and field", async () => {
    expect(await findings("[registry]\nproxy = 1\n")).toMatchObject([
      { check: "config", state: "bad", found: expect.stringContaining("config.toml: registry.proxy: must") },
    ]);
    expect(await findings('[registry]\nca_file = "/nowhere"\n')).toMatchObject([
      {
        check: "config",
        state: "bad",
        found: expect.stringMatching(/config\.toml: registry\.ca_file: \/nowhere cannot be read$/),
      },
    ]);
    expect(await findings('[database]\nurl = "postgres://u:hunter2@db.example/n"\n')).toMatchObject([
      {
        check: "config",
        state: "bad",
        found: expect.stringMatching(
          /config\.toml: database\.url: the database at db\.example .* in the clear/,
        ),
        next: expect.stringContaining("sslmode=verify-full"),
      },
    ]);
    const key = join(folder, "tls.key");
    writeFileSync(key, "", { mode: 0o644 });
    expect(await findings(`[gateway]\ntls_cert_file = "${key}"\ntls_key_file = "${key}"\n`)).toMatchObject([
      { check: "config", state: "bad", next: `Run: chmod g-w,o-rw ${key}` },
    ]);
    const role = '[identities.x]\ntype = "aws"\nsource = "instance"\nrole_arn = "puller"\n';
    expect(await findings(role)).toMatchObject([
      {
        check: "config",
        state: "bad",
        found: expect.stringMatching(/config\.toml: identities\.x: role_arn is not the ARN/),
      },
    ]);
  });

  test("whether its proxies take connections, without the password that is in their URLs", async () => {
    const told = await findings(
      `[registry]\nproxy = "http://127.0.0.1:${openPort}"\n` +
        `[registry.hosts."a.lan"]\nproxy = "http://user:hunter2@127.0.0.1:${closedPort}"\n`,
      { HTTPS_PROXY: "http://127.0.0.1:1" },
    );
    expect(told).toMatchObject([
      { check: "proxy", state: "ok", found: `http://127.0.0.1:${openPort} takes connections` },
      { check: "proxy", state: "bad", found: `http://127.0.0.1:${closedPort} takes no connection` },
    ]);
    expect(JSON.stringify(told)).not.toContain("hunter2");
    expect(await findings("", { https_proxy: `127.0.0.1:${closedPort}`, NO_PROXY: "*" })).toMatchObject([
      { check: "proxy", state: "bad", found: `http://127.0.0.1:${closedPort} takes no connection` },
    ]);
  });

  test("whether a plugin can be run, and a workspace may use it", async () => {
    const plugin = join(folder, "plugin");
    const identity = `[identities.v]\ntype = "plugin"\ncommand = ["${plugin}"]\nmatch_images = ["a.lan"]\n`;
    const allowed = `${identity}[workspaces.default]\nidentities = ["v"]\n`;
    expect(await findings(allowed)).toMatchObject([
      { check: "identity v", state: "limited", found: `the plugin ${plugin} cannot be run` },
    ]);
    writeFileSync(plugin, "#!/bin/sh\n");
    chmodSync(plugin, 0o755);
    expect(await findings(allowed)).toEqual([
      { check: "identity v", state: "ok", found: `the plugin ${plugin} can be run` },
    ]);
    expect(await findings(identity)).toMatchObject([
      { state: "limited", found: `the plugin ${plugin} can be run; no workspace may use it` },
    ]);
  });

  test("whether its issuer is found under the name that clouds compare", async () => {
    expect(await findings(issuer("https://id.acme.example/node"))).toEqual([
      { check: "issuer", state: "ok", found: "https://id.acme.example/node is found" },
    ]);
    expect(await findings(issuer("https://id.acme.example/other"))).toMatchObject([
      { state: "limited", found: expect.stringContaining("is not what the gateway publishes") },
    ]);
    expect(await findings(issuer("https://id.acme.example/broken"))).toMatchObject([
      { state: "limited", found: expect.stringContaining("is answered with 404") },
    ]);
  });
});
