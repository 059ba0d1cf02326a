import { cleanEnvironment } from "../../src/std/spawn.ts";

/** A program that runs beside the tests, with its output in memory. Dies with the test process, however that ends. */
export class Program {
  readonly name: string;
  readonly child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  /** What it wrote so far, both streams in the order of arrival; the oldest part goes when it is over 4 MiB. */
  output = "";
  readonly #changed = new Set<() => void>();
  readonly #drained: Promise<unknown>;

  constructor(argv: readonly string[], options: { env?: Record<string, string>; cwd?: string } = {}) {
    this.name = argv[0] ?? "";
    this.child = Bun.spawn(["setpriv", "--pdeathsig", "KILL", "--", ...argv], {
      env: { ...cleanEnvironment, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
    this.#drained = Promise.all([this.#drain(this.child.stdout), this.#drain(this.child.stderr)]);
  }

  get pid(): number {
    return this.child.pid;
  }

  /** Waits until the output matches and gives the match; fails when the program ends first or the time is over. */
  async waitFor(pattern: RegExp, timeoutMs = 30_000): Promise<RegExpMatchArray> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const match = this.output.match(pattern);
      if (match !== null) return match;
      const leftMs = deadline - Date.now();
      if (this.child.exitCode !== null || this.child.signalCode !== null || leftMs <= 0) {
        await Promise.race([this.#drained, Bun.sleep(200)]);
        const last = this.output.match(pattern);
        if (last !== null) return last;
        const how = leftMs <= 0 ? `said nothing like ${pattern} in ${timeoutMs} ms` : "ended too early";
        throw new Error(
          `${this.name} ${how} (exit code ${this.child.exitCode}); it wrote:\n${this.output.slice(-4000)}`,
        );
      }
      await this.#nextChange(leftMs);
    }
  }

  /** Sends the signal and waits for the end; kills when it takes longer than the time given. */
  async stop(signal: NodeJS.Signals = "SIGTERM", timeoutMs = 10_000): Promise<number> {
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill("SIGKILL"), timeoutMs);
    try {
      return await this.child.exited;
    } finally {
      clearTimeout(timer);
      await Promise.race([this.#drained, Bun.sleep(1000)]);
    }
  }

  async #drain(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.output += decoder.decode(chunk, { stream: true });
      if (this.output.length > 4 * 1024 * 1024) this.output = this.output.slice(-2 * 1024 * 1024);
      for (const wake of this.#changed) wake();
    }
    for (const wake of this.#changed) wake();
  }

  #nextChange(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#changed.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#changed.add(done);
      void this.child.exited.then(done);
    });
  }
}
