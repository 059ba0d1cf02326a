import { spawnAtTerminal } from "../../native/interactive.ts";
import { cleanEnvironment } from "../../std/spawn.ts";
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
  const { stdout, stderr } = child;
  const streams = streamsOf(child, { stdout, stderr });
  return { ...streams, closeInput: () => streams.endInput(), resize: () => undefined };
}

/** As control-D, which most programs at a terminal take for the end of their input. */
const endOfInput = new Uint8Array([0x04]);

/** Spawns with a terminal that is standard input, output and error. */
export function spawnWithTerminal(argv: readonly string[], cwd: string, wanted: TerminalSize): ExecStreams {
  const size = sizeOf(wanted);
  const child = spawnAtTerminal(argv, cwd, size);
  const streams = streamsOf(child, { stdout: child.stdout });
  return {
    ...streams,
    closeInput: () => void streams.write(endOfInput),
    resize(wanted) {
      const { rows, columns } = sizeOf(wanted);
      child.resize(rows, columns);
    },
  };
}

/** A caller who does not know the size of his terminal. */
function sizeOf({ rows, columns }: TerminalSize): TerminalSize {
  return { rows: rows || 24, columns: columns || 80 };
}

interface Child {
  readonly pid: number;
  readonly exited: Promise<number>;
  readonly stdin: Bun.FileSink;
  kill(signal: NodeJS.Signals): void;
}

function streamsOf(child: Child, outputs: Partial<Record<OutputPart["stream"], ReadableStream<Uint8Array>>>) {
  const queue = new OutputQueue();
  const pump = async (stream: OutputPart["stream"], from: ReadableStream<Uint8Array>): Promise<void> => {
    for await (const data of from) await queue.push({ stream, data });
  };
  const pumps = Object.entries(outputs).map(([stream, from]) => pump(stream as OutputPart["stream"], from));
  void Promise.allSettled(pumps).then(() => queue.end());
  let closed = false;
  return {
    pid: child.pid,
    exited: child.exited,
    output: queue,
    async write(data: Uint8Array): Promise<void> {
      if (closed) return;
      try {
        await child.stdin.write(data);
        await child.stdin.flush();
      } catch {
        // It reads no more.
        closed = true;
      }
    },
    endInput(): void {
      closed = true;
      void Promise.resolve(child.stdin.end()).catch(() => undefined);
    },
    drop: () => queue.drop(),
    kill: () => child.kill("SIGKILL"),
  };
}
