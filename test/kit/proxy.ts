import { join } from "node:path";
import type { Fault, ProxySettings, ProxyStats } from "./fault.ts";
import { Program } from "./program.ts";

/** A proxy between a client and a registry, in a process of its own: a slow and narrow link, and faults on request. */
export class TestProxy {
  /** `127.0.0.1:PORT`, to stand in image references in place of the registry's. */
  readonly host: string;
  readonly #control: string;
  readonly #program: Program;

  private constructor(host: string, control: string, program: Program) {
    this.host = host;
    this.#control = control;
    this.#program = program;
  }

  static async start(
    upstream: string,
    link: Partial<Omit<ProxySettings, "upstream">> = {},
  ): Promise<TestProxy> {
    const settings: ProxySettings = { upstream, delayMs: 0, bytesPerSecond: 0, ...link };
    const program = new Program([
      process.execPath,
      join(import.meta.dir, "proxy-main.ts"),
      JSON.stringify(settings),
    ]);
    const match = await program.waitFor(/proxy (\S+) control (\S+)\n/);
    return new TestProxy(match[1] as string, match[2] as string, program);
  }

  /** Sets the rules; those set before are gone. */
  async setFaults(...faults: readonly Fault[]): Promise<void> {
    await this.#ask("/faults", JSON.stringify(faults));
  }

  stats(): Promise<ProxyStats> {
    return this.#ask("/stats");
  }

  resetStats(): Promise<ProxyStats> {
    return this.#ask("/reset");
  }

  /** Stops reading and answering without closing connections, as a machine behind a dead link does. */
  pause(): void {
    this.#program.child.kill("SIGSTOP");
  }

  resume(): void {
    this.#program.child.kill("SIGCONT");
  }

  async stop(): Promise<void> {
    await this.#program.stop("SIGKILL");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #ask(path: string, body?: string): Promise<ProxyStats> {
    const answer = await fetch(
      `http://${this.#control}${path}`,
      body === undefined ? {} : { method: "POST", body },
    );
    return (await answer.json()) as ProxyStats;
  }
}
