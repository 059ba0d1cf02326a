import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type CliResult, runCli } from "./node.ts";
import { product } from "./product.ts";
import type { Row } from "./quirk-row.ts";

/** A mount of a row's image that no node stands behind: it makes its tokens itself for as long as it lives. */
export class QuirkMount {
  readonly #dir: string;
  readonly #target: string;

  private constructor(dir: string, target: string) {
    this.#dir = dir;
    this.#target = target;
  }

  /** Mounts below the folder what the row's registry has already; fetches nothing but what is read. */
  static async up(dir: string, row: Row, configFile: string): Promise<QuirkMount> {
    const target = join(dir, row.reference.replace(/[/:]/g, "-"));
    await mkdir(target);
    const mount = new QuirkMount(dir, target);
    const keys = ["--creds", Object.keys(row.env).join(",")];
    const flags = ["--index-only", "--config", configFile, ...keys];
    const { code, stderr } = await mount.#cli(["mount", ...flags, row.reference, target], row.env);
    if (code !== 0) throw new Error(`mount ${row.reference}: ${stderr}`);
    return mount;
  }

  async md5Of(file: "one" | "two"): Promise<string> {
    const bytes = await readFile(join(this.#target, "data", file));
    return new Bun.CryptoHasher("md5").update(bytes).digest("hex");
  }

  async down(): Promise<void> {
    const { code, stderr } = await this.#cli(["umount", this.#target]);
    if (code !== 0) throw new Error(`umount: ${stderr}`);
  }

  async #cli(args: readonly string[], env: Row["env"] = {}): Promise<CliResult> {
    const home = { HOME: this.#dir, XDG_CONFIG_HOME: this.#dir, XDG_CACHE_HOME: this.#dir };
    return runCli(await product(), args, { env: { ...env, ...home }, timeoutMs: 100_000 });
  }
}
