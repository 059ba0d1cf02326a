import { expect, test } from "bun:test";
import { chmod, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCli, TestNode } from "../kit/node.ts";
import { product } from "../kit/product.ts";

interface ListedKey {
  readonly id: string;
  readonly primary: boolean;
  readonly workspaces: number;
  readonly exportedAt: string | null;
  readonly retiredAt: string | null;
}

const values = { stdin: "USERNAME=octo\nPASSWORD=planted-password\n" };

/** An equal value makes no version: only who can open the present one can say that it is equal. */
async function opens(node: TestNode, secret: string): Promise<boolean> {
  return (await node.json<{ changed: boolean }>(["secret", "update", secret], values)).changed === false;
}

test("a key is told of, copied, gone on from, lost, and put back", async () => {
  const home = await mkdtemp(join(tmpdir(), "oci-node-keys-"));
  await chmod(home, 0o755);
  const [dataDir, copies] = [join(home, "data"), join(home, "safe")];
  const pass = join(home, "passphrase");
  await writeFile(pass, "correct horse battery staple\n", { mode: 0o600 });
  const copy = (command: string[]) => [
    ...["key", ...command, "--data-dir", dataDir, "--passphrase-file", pass],
  ];
  let node = await TestNode.start({ dataDir });
  try {
    // Losing it is explained before it happens: by the first start, by `key ls` and by `doctor`.
    const keyPath = join(dataDir, "key");
    await node.waitForLog(/note: made the key file \S+: without it no stored secret can be opened/);
    expect(node.log).toContain(`oci-node key export --data-dir ${dataDir} --to FILE`);
    expect(node.records).toContainEqual(
      expect.objectContaining({ level: "warning", room: "secret", path: keyPath }),
    );
    const listed = await node.cli(["key", "ls"]);
    expect(listed.stdout).toMatch(/^[0-9a-f]{16} +file +primary +1 /m);
    expect(listed.stderr).toContain(`if ${keyPath} is lost, so is every secret`);
    const doctor = async () => (await node.cli(["doctor", "--data-dir", dataDir])).stdout;
    expect(await doctor()).toMatch(/limited +key +\S+ \([0-9a-f]{16}\) is the only copy that is known/);

    const [first] = await node.json<ListedKey[]>(["key", "ls"]);
    await node.ok(["secret", "create", "ghcr.io", "--name", "s"], values);
    await node.ok(copy(["export", "--to", join(copies + 1)]));
    expect(await doctor()).toMatch(/ok +key +\S+ \([0-9a-f]{16}\); a copy was exported \d+ s ago/);
    expect((await node.json<ListedKey[]>(["key", "ls"]))[0]?.exportedAt).toBeString();
    expect((await node.cli(["key", "ls"])).stderr).toBe("");

    const { primary, left } = await node.json<{ primary: string; left: number }>(["key", "rotate"]);
    expect([left, await readdir(join(dataDir, "keys"))]).toEqual([0, [primary]]);
    expect(await opens(node, "s")).toBe(true);
    const retired = await node.json<ListedKey>(["key", "retire", first?.id ?? ""]);
    expect([retired.workspaces, retired.retiredAt === null]).toEqual([0, false]);
    const refused = await node.cli(["key", "retire", primary]);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("oci-node key rotate")]);
    await node.ok(copy(["export", "--key", primary, "--to", join(copies + 2)]));
    expect(await node.stopProcess()).toBe(0);

    // What it said may go does go, and nobody misses it. The other one is missed.
    await rm(keyPath);
    await node.discard();
    node = await TestNode.start({ dataDir });
    expect(await opens(node, "s")).toBe(true);
    expect(await readdir(dataDir)).not.toContain("key");
    expect(await node.stopProcess()).toBe(0);
    const newKey = join(dataDir, "keys", primary);
    await rename(newKey, join(home, "aside"));
    const failed = await runCli(await product(), ["dev", "--data-dir", dataDir, "--listen", "127.0.0.1:0"], {
      env: { XDG_CONFIG_HOME: join(home, "config") },
    });
    expect(failed.code).toBe(1);
    expect(failed.stderr).toContain(`what is stored is under the key ${primary}, which this host lacks`);
    expect(failed.stderr).toContain("oci-node key import FILE");
    expect(await readdir(dataDir)).not.toContain("key");

    const wrong = join(home, "wrong");
    await writeFile(wrong, "correct horse battery stable\n", { mode: 0o600 });
    const closed = await node.cli([...copy(["import", join(copies + 2)]).slice(0, -1), wrong]);
    expect([closed.code, closed.stderr]).toEqual([1, expect.stringContaining("does not open")]);
    await node.ok(copy(["import", join(copies + 2)]));
    await node.discard();
    node = await TestNode.start({ dataDir });
    expect(await opens(node, "s")).toBe(true);
    // Neither key nor passphrase is in what the node wrote.
    const key = (await readFile(join(home, "aside"), "utf8")).split(" ")[1]?.trim() ?? "";
    for (const hidden of [key, "correct horse", "planted-password"]) expect(node.log).not.toContain(hidden);
  } finally {
    await node.discard();
    await rm(home, { recursive: true, force: true });
  }
}, 120_000);

test("a key in a variable is for dev, and a copy of it is not to be had", async () => {
  const home = await mkdtemp(join(tmpdir(), "oci-node-keys-"));
  await chmod(home, 0o755);
  const config = join(home, "config.toml");
  const text = `data_dir = "${home}/data"\nfirst_key = "dev"\n[keys.dev]\ntype = "env"\nvariable = "PLANTED_KEY"\n`;
  await writeFile(config, text, { mode: 0o600 });
  const PLANTED_KEY = Buffer.alloc(32, 7).toString("base64");
  const env = { PLANTED_KEY, XDG_CONFIG_HOME: join(home, "config") };
  try {
    const role = await runCli(await product(), ["--role=gateway", "--config", config], { env });
    expect(role.code).toBe(1);
    expect(role.stderr).toContain("keys.dev: a key in a variable is for `oci-node dev` only");
    const { XDG_CONFIG_HOME } = env;
    const without = await runCli(await product(), ["dev", "--config", config], { env: { XDG_CONFIG_HOME } });
    expect(without.stderr).toContain("the variable PLANTED_KEY is not set");
    const copied = await runCli(
      await product(),
      ["key", "export", "--config", config, "--key", "dev", "--to", join(home, "x")],
      { env },
    );
    expect([copied.code, copied.stderr]).toEqual([1, expect.stringContaining("is not in a file")]);
    for (const { stdout, stderr } of [role, without, copied])
      expect(stdout + stderr).not.toContain(PLANTED_KEY);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}, 60_000);
