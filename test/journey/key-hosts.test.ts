import { expect, test } from "bun:test";
import { chmod, copyFile, mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { startTestPostgres } from "../../src/db/postgres.test-kit.ts";
import { runCli } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { Program } from "../kit/program.ts";
import { inScratch } from "../kit/world.ts";

/** A gateway with a folder of its own, as on another host. */
class Gateway {
  readonly dataDir: string;
  readonly #config: string;
  readonly #home: string;
  #program: Program | undefined;
  url = "";

  constructor(scratch: string, name: string) {
    this.#home = join(scratch, name);
    this.dataDir = join(this.#home, "data");
    this.#config = join(this.#home, "config.toml");
  }

  async start(databaseUrl: string): Promise<void> {
    await mkdir(this.dataDir, { recursive: true });
    const lines = [
      `data_dir = "${this.dataDir}"`,
      `database.url = "${databaseUrl}"`,
      'gateway.listen = "127.0.0.1:0"',
    ];
    await writeFile(this.#config, `${lines.join("\n")}\n`, { mode: 0o600 });
    const argv = [...(await product()), "--role=gateway", "--config", this.#config];
    this.#program = new Program(argv, { env: this.#env });
    this.url = (await this.#program.waitFor(/^ready (\S+)$/m, 60_000))[1] ?? "";
  }

  get #env(): Record<string, string> {
    return { XDG_CONFIG_HOME: join(this.#home, "xdg") };
  }

  async cli(...args: string[]) {
    return await runCli(await product(), args, {
      env: this.#env,
      stdin: "USERNAME=octo\nPASSWORD=planted\n",
      timeoutMs: 90_000,
    });
  }

  async copies(command: readonly string[], passphraseFile: string) {
    return await this.cli("key", ...command, "--config", this.#config, "--passphrase-file", passphraseFile);
  }

  async token(): Promise<string> {
    const context = await readFile(join(this.#home, "xdg/oci-node/context.json"), "utf8");
    return (JSON.parse(context) as { token: string }).token;
  }

  async stop(): Promise<void> {
    await this.#program?.stop();
  }
}

const credentials = { USERNAME: "octo", PASSWORD: "planted" };

/** An equal value makes no version: only who can open the present one can say that it is equal. */
async function opens({ url }: Gateway, token: string): Promise<boolean> {
  const answer = await fetch(`${url}/oci_node.v1.SecretService/UpdateSecret`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify({ name: "s", credentials }),
  });
  const { changed = false, secret } = (await answer.json()) as { changed?: boolean; secret?: object };
  return answer.status === 200 && secret !== undefined && !changed;
}

test("two gateways on one database: a rotation waits for the key to be on both, and then fails no read of either", async () => {
  const server = await startTestPostgres();
  try {
    await inScratch(async (dir) => {
      const [one, two] = [new Gateway(dir, "one"), new Gateway(dir, "two")];
      const pass = join(dir, "passphrase");
      await writeFile(pass, "correct horse battery staple\n", { mode: 0o600 });
      try {
        await one.start(server.url);
        // Without the key the second one does not start, and makes none.
        await expect(two.start(server.url)).rejects.toThrow(
          /is under the key [0-9a-f]{16}, which this host lacks/,
        );
        expect(await stat(join(two.dataDir, "key")).catch(() => "not there")).toBe("not there");
        await copyFile(join(one.dataDir, "key"), join(two.dataDir, "key"));
        await chmod(join(two.dataDir, "key"), 0o600);
        await two.start(server.url);
        await one.cli("secret", "create", "ghcr.io", "--name", "s");
        for (let index = 0; index < 10; index += 1) await one.cli("workspace", "create", `w-${index}`);

        const refused = await one.cli("key", "rotate");
        expect(refused.code).toBe(1);
        const [, made = ""] = /rotate --to ([0-9a-f]{16})/.exec(refused.stderr) ?? [];
        expect(refused.stderr).toMatch(
          /\(gateway\) cannot use the key [0-9a-f]{16}, so it did not become primary/,
        );
        expect((await one.copies(["export", "--key", made, "--to", join(dir, "copy")], pass)).code).toBe(0);
        expect((await two.copies(["import", join(dir, "copy")], pass)).code).toBe(0);

        const tokens = new Map([
          [one, await one.token()],
          [two, await two.token()],
        ]);
        let done = false;
        const reads = [0, 0];
        const failures: unknown[] = [];
        const load = [one, two].map(async (gateway, which) => {
          while (!done) {
            const opened = await opens(gateway, tokens.get(gateway) ?? "").catch((error) => error);
            if (opened === true) reads[which] = (reads[which] ?? 0) + 1;
            else failures.push(opened);
          }
        });
        const rotated = await one.cli("key", "rotate", "--to", made, "--json");
        const back = await two.cli("key", "ls", "--json");
        done = true;
        await Promise.all(load);
        expect(rotated.stderr).toBe("");
        expect(JSON.parse(rotated.stdout)).toEqual({ primary: made, rewrapped: 12, left: 0 });
        expect(failures).toEqual([]);
        for (const count of reads) expect(count).toBeGreaterThan(0);
        const keys = JSON.parse(back.stdout) as { id: string; missingAt: string[] }[];
        expect(keys.find(({ id }) => id === made)).toMatchObject({
          missingAt: [],
          workspaces: 11,
          authorities: 1,
        });
      } finally {
        await two.stop();
        await one.stop();
      }
    });
  } finally {
    await server.end();
  }
}, 180_000);
