import { join } from "node:path";
import { cleanEnvironment, run } from "../../src/std/spawn.ts";
import { cachedFolder } from "./cache.ts";

/** What came of a load; latencies in microseconds. */
export interface Load {
  /** Answers with 2xx. */
  readonly good: number;
  readonly other: number;
  /** Requests whose connection ended before their answer did. */
  readonly broken: number;
  readonly microseconds: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly most: number;
}

export interface LoadOptions {
  readonly connections: number;
  /** At most; absent: a minute. */
  readonly milliseconds?: number;
  readonly headers?: readonly string[];
}

/** Sends GET requests over so many connections at once (load.c), from when the first was answered until the end. */
export class RunningLoad {
  readonly #child: Bun.Subprocess<"ignore", "pipe", "inherit">;
  readonly #output: Promise<string>;

  private constructor(child: Bun.Subprocess<"ignore", "pipe", "inherit">, output: Promise<string>) {
    this.#child = child;
    this.#output = output;
  }

  static async start(url: string, options: LoadOptions): Promise<RunningLoad> {
    const { hostname, port, pathname, search } = new URL(url);
    const numbers = [String(options.connections), String(options.milliseconds ?? 60_000)];
    const argv = [hostname, port, ...numbers, `${pathname}${search}`, ...(options.headers ?? [])];
    const child = Bun.spawn([await compiled(), ...argv], {
      env: cleanEnvironment,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    const begun = Promise.withResolvers<void>();
    const read = async (): Promise<string> => {
      let text = "";
      for await (const piece of child.stdout) {
        text += Buffer.from(piece).toString();
        begun.resolve();
      }
      return text;
    };
    const output = read();
    await Promise.race([begun.promise, output]);
    return new RunningLoad(child, output);
  }

  /** Ends it, and gives what came of it. */
  async end(): Promise<Load> {
    this.#child.kill("SIGTERM");
    return await this.whenOver();
  }

  /** What came of it when its time is over. */
  async whenOver(): Promise<Load> {
    return JSON.parse((await this.#output).trimEnd().split("\n").at(-1) ?? "") as Load;
  }
}

async function compiled(): Promise<string> {
  const source = join(import.meta.dir, "load.c");
  const dir = await cachedFolder("load", await Bun.file(source).text(), async (beside) => {
    await run(["gcc", "-O2", "-Wall", "-o", join(beside, "load"), source], { timeoutMs: 60_000 });
  });
  return join(dir, "load");
}
