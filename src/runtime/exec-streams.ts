import { cleanEnvironment } from "../std/spawn.ts";
import { type OutputPart, OutputQueue } from "./exec-output.ts";
import type { TerminalSize } from "./exec-process.ts";

/** A program that was spawned, and the ways to and from it. */
export interface ExecStreams {
  readonly pid: number;
  /** Of the program that was spawned. Never rejects. */
  readonly exited: Promise<number>;
  /** Ends when nothing more can come. */
  readonly output: AsyncIterable<OutputPart>;
  /** Waits until the program takes more. Whatever it does not read is lost without a word, as on a pipe. */
  write(data: Uint8Array): Promise<void>;
  /** Nothing more comes for standard input. */
  closeInput(): void;
  /** Of the terminal; without one nothing happens. */
  resize(size: TerminalSize): void;
  /** Nobody reads any more: what is written is thrown away. */
  drop(): void;
  /** Ends what was spawned, not what that started. */
  kill(): void;
}

/** Spawns with a pipe each for standard input, output and error. */
export function spawnWithPipes(argv: readonly string[], cwd: string): ExecStreams {
  const child = Bun.spawn([...argv], {
    cwd,
    env: { ...cleanEnvironment },
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
  const queue = new OutputQueue();
  const pump = async (stream: OutputPart["stream"], from: ReadableStream<Uint8Array>): Promise<void> => {
    for await (const data of from) await queue.push({ stream, data });
  };
  void Promise.allSettled([pump("stdout", child.stdout), pump("stderr", child.stderr)]).then(() =>
    queue.end(),
  );
  let closed = false;
  return {
    pid: child.pid,
    exited: child.exited,
    output: queue,
    async write(data) {
      if (closed) return;
      try {
        await child.stdin.write(data);
        await child.stdin.flush();
      } catch {
        // It reads no more.
        closed = true;
      }
    },
    closeInput() {
      closed = true;
      void Promise.resolve(child.stdin.end()).catch(() => undefined);
    },
    resize: () => undefined,
    drop: () => queue.drop(),
    kill: () => child.kill("SIGKILL"),
  };
}
