import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { InstalledPackage } from "../../src/sdk/python/package.test-kit.ts";
import { type CliResult, runCli, type TestNode } from "./node.ts";

/** Somebody with the Python package and a folder of code, on a machine that knows a node. */
export class PythonUser {
  readonly #node: TestNode;
  readonly #package: InstalledPackage;
  /** The folder. */
  readonly dir: string;

  private constructor(node: TestNode, installed: InstalledPackage, dir: string) {
    this.#node = node;
    this.#package = installed;
    this.dir = dir;
  }

  static async start(node: TestNode): Promise<PythonUser> {
    return new PythonUser(
      node,
      await InstalledPackage.install(),
      await mkdtemp(join(tmpdir(), "oci-node-user-")),
    );
  }

  async write(path: string, text: string): Promise<void> {
    const full = join(this.dir, path);
    await mkdir(dirname(full), { recursive: true });
    await writeFile(full, text);
  }

  /** `oci-node-py …` in a folder below this one. */
  command(args: readonly string[], env: Record<string, string> = {}, folder = "."): Promise<CliResult> {
    return this.#run([join(this.#package.bin, "oci-node-py")], args, env, folder);
  }

  /** A Python program; gives what it printed, and fails with what it said. */
  async program(
    text: string,
    { folder = ".", env = {} }: { folder?: string; env?: Record<string, string> } = {},
  ): Promise<string> {
    const { code, stdout, stderr } = await this.#run([this.#package.python], ["-c", text], env, folder);
    if (code !== 0) throw new Error(`the program ended with ${code}: ${stderr}`);
    return stdout;
  }

  /** The token that the node's context file has. */
  async token(): Promise<string> {
    const text = await readFile(join(this.#node.home, "config/oci-node/context.json"), "utf8");
    return (JSON.parse(text) as { token: string }).token;
  }

  async stop(): Promise<void> {
    await this.#package[Symbol.asyncDispose]();
    await rm(this.dir, { recursive: true, force: true });
  }

  #run(
    command: readonly string[],
    args: readonly string[],
    env: Record<string, string>,
    folder: string,
  ): Promise<CliResult> {
    const home = this.#node.home;
    const all = {
      HOME: home,
      XDG_CONFIG_HOME: join(home, "config"),
      PYTHONDONTWRITEBYTECODE: "1",
      ...env,
    };
    return runCli(command, args, { cwd: join(this.dir, folder), env: all, timeoutMs: 100_000 });
  }
}
