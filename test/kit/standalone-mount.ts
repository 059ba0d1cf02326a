import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type CliResult, runCli } from "./node.ts";
import { product } from "./product.ts";
import type { TestRegistry } from "./registry.ts";
import { credentialVariables, withCredentials } from "./world.ts";

/** A mount without any server, with everything of it in one folder. */
export class StandaloneMount {
  readonly dir: string;
  readonly target: string;
  readonly #registry: TestRegistry;

  constructor(dir: string, registry: TestRegistry) {
    this.dir = dir;
    this.target = join(dir, "tree");
    this.#registry = registry;
  }

  async cli(args: readonly string[]): Promise<CliResult> {
    const env = {
      ...credentialVariables(this.#registry),
      HOME: this.dir,
      XDG_CONFIG_HOME: this.dir,
      XDG_CACHE_HOME: this.dir,
    };
    return runCli(await product(), args, { env, timeoutMs: 100_000 });
  }

  async up(reference: string, flags: readonly string[] = []): Promise<CliResult> {
    await mkdir(this.target, { recursive: true });
    const hosts = [...this.#registry.insecureHosts, reference.split("/")[0] ?? ""];
    const insecure = [...new Set(hosts)].flatMap((host) => ["--insecure-registry", host]);
    const places = ["--index-store", join(this.dir, "index"), "--cache-dir", join(this.dir, "cache")];
    return this.cli(["mount", reference, this.target, ...withCredentials, ...places, ...insecure, ...flags]);
  }

  async down(): Promise<void> {
    const result = await this.cli(["umount", this.target]);
    if (result.code !== 0) throw new Error(`umount: ${result.stderr}`);
  }
}
