import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TestNode } from "../kit/node.ts";
import { PythonUser } from "../kit/python-user.ts";
import { TestAuthority } from "../kit/tls-server.ts";
import { refusal } from "../kit/world.ts";

let dir: string;
let authority: TestAuthority;
let node: TestNode;
/** How the certificate calls the gateway. */
let url: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-gateway-tls-"));
  authority = await TestAuthority.make();
  const { key, cert } = await authority.certificateFor("localhost");
  const write = async (name: string, text: string) => {
    const path = join(dir, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  };
  const lines = [
    `gateway.tls_cert_file = "${await write("gateway.pem", cert)}"`,
    `gateway.tls_key_file = "${await write("gateway.key", key)}"`,
    "",
  ];
  node = await TestNode.start({ args: ["--config", await write("config.toml", lines.join("\n"))] });
  url = node.url.replace("127.0.0.1", "localhost");
}, 60_000);
afterAll(async () => {
  await node.stop();
  await authority.discard();
  await rm(dir, { recursive: true, force: true });
}, 60_000);

test("a gateway under a private authority is reached by who knows that", async () => {
  const env = { OCI_NODE_URL: url, OCI_NODE_CA_FILE: authority.certificateFile };
  expect((await node.json<{ name: string }[]>(["workspace", "ls"], { env }))[0]?.name).toBe("default");
  const token = await node.ok(["token", "create", "--role", "viewer", "--workspace", "default"], { env });
  expect(await node.json<[]>(["image", "ls"], { env: { ...env, OCI_NODE_TOKEN: token } })).toEqual([]);
});

test("a gateway whose authority is not known, or whose name is another, is sent nothing, and that is said", async () => {
  const unknown = refusal(await node.cli(["image", "ls"], { env: { OCI_NODE_URL: url } }));
  expect(unknown).toContain("certificate");
  expect(unknown).toContain("OCI_NODE_CA_FILE");
  const env = { OCI_NODE_URL: node.url, OCI_NODE_CA_FILE: authority.certificateFile };
  const other = refusal(await node.cli(["image", "ls"], { env }));
  expect(other).toContain("certificate");
  expect(other).toContain("127.0.0.1");
});

test("the Python package reaches it likewise, uploads over it, and says what is wrong with the certificate", async () => {
  const user = await PythonUser.start(node);
  try {
    const app = `from oci_node import Image, endpoint
@endpoint(image=Image.from_id("img-absent"))
def handler(): pass
`;
    await user.write("app.py", app);
    // More than one piece of an upload.
    await user.write("noise.txt", randomBytes(700_000).toString("hex"));
    const deploy = (env: Record<string, string>) => user.command(["deploy", "app.py:handler"], env);
    const known = { OCI_NODE_URL: url, OCI_NODE_CA_FILE: authority.certificateFile };
    const { code, stderr } = await deploy(known);
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/^code: 2 files, .* uploading\noci-node-py: .*img-absent/),
    ]);
    expect((await deploy(known)).stderr).toMatch(/^code: 2 files, .* there already\n/);
    const unknown = await deploy({ OCI_NODE_URL: url });
    expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining("OCI_NODE_CA_FILE")]);
    const other = await deploy({ OCI_NODE_URL: node.url, OCI_NODE_CA_FILE: authority.certificateFile });
    expect([other.code, other.stderr]).toEqual([1, expect.stringContaining("127.0.0.1")]);
    expect(other.stderr).toContain("certificate");
  } finally {
    await user.stop();
  }
});

test("a file of authorities that is none is told by its path", async () => {
  const empty = join(dir, "empty.pem");
  await writeFile(empty, "");
  for (const [path, why] of [
    [join(dir, "missing.pem"), "cannot be read"],
    [empty, "holds no certificate"],
  ] as const) {
    const told = refusal(
      await node.cli(["image", "ls"], { env: { OCI_NODE_URL: url, OCI_NODE_CA_FILE: path } }),
    );
    expect(told).toContain(path);
    expect(told).toContain(why);
  }
});

test("the context file has the name by which the gateway is called, where one is set", async () => {
  const config = join(dir, "named.toml");
  await writeFile(config, 'gateway.url = "https://oci-node.example:7070"\n', { mode: 0o600 });
  const named = await TestNode.start({ args: ["--config", config] });
  try {
    const context = await Bun.file(join(named.home, "config/oci-node/context.json")).json();
    expect(context.url).toBe("https://oci-node.example:7070");
  } finally {
    await named.stop();
  }
});
