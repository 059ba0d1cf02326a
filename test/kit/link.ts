import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { cachedFolder } from "./cache.ts";
import type { ProxySettings, ProxyStats } from "./fault.ts";
import { Program } from "./program.ts";

/** A link's properties: what each request waits, and what all connections together get. */
export type LinkSettings = Omit<ProxySettings, "upstream">;

/**
 * The proxy of the benchmarks (link.c): delay, rate and counts, no faults. It takes a third of the processor time of the
 * one that makes faults, and comes closer to the rate that it is set to.
 */
export class TestLink {
  /** `127.0.0.1:PORT`, to stand in image references in place of the registry's. */
  readonly host: string;
  readonly #control: string;
  readonly #program: Program;

  private constructor(host: string, control: string, program: Program) {
    this.host = host;
    this.#control = control;
    this.#program = program;
  }

  static async start(upstream: string, settings: LinkSettings): Promise<TestLink> {
    const program = new Program([await compiledLink(), ...upstream.split(":")]);
    const match = await program.waitFor(/link (\S+) control (\S+)\n/);
    const link = new TestLink(match[1] as string, match[2] as string, program);
    await link.set(settings);
    return link;
  }

  get pid(): number {
    return this.#program.pid;
  }

  async set({ delayMs, bytesPerSecond }: LinkSettings): Promise<void> {
    await this.#ask(`/set?delay_ms=${delayMs}&rate=${bytesPerSecond}`);
  }

  stats(): Promise<ProxyStats> {
    return this.#ask("/stats");
  }

  resetStats(): Promise<ProxyStats> {
    return this.#ask("/reset");
  }

  async stop(): Promise<void> {
    await this.#program.stop("SIGKILL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #ask(path: string): Promise<ProxyStats> {
    return (await (await fetch(`http://${this.#control}${path}`)).json()) as ProxyStats;
  }
}

async function compiledLink(): Promise<string> {
  const source = join(import.meta.dir, "link.c");
  const dir = await cachedFolder("link", await Bun.file(source).text(), async (beside) => {
    await run(["gcc", "-O2", "-Wall", "-o", join(beside, "link"), source], { timeoutMs: 60_000 });
  });
  return join(dir, "link");
}
