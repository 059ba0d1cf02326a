/** The small program by which people reach programs in containers; see native/src/interactive/main.c. */
import { readFileSync, writeSync } from "node:fs";
import programPath from "../../native/out/oci-node-interactive.elf" with { type: "file" };
import { cleanEnvironment } from "../std/spawn.ts";
import { inMemory } from "./shim.ts";

let descriptor: number | undefined;

/** Of the child: standard input, output, error, lines for the terminal's size, and the program itself. */
const programFd = 4;
const self = `/proc/self/fd/${programFd}`;

/** It is run from memory, as it has no file of its own where the executable is compiled. */
function program(): number {
  descriptor ??= inMemory(readFileSync(programPath));
  return descriptor;
}

/**
 * Starts the program that keeps a container's standard input open, and resolves with its process once it listens: it goes on
 * without us, as long as the container's monitor lives. See native/src/interactive/stdin.c.
 *
 * @param cwd the folder of the monitor's socket, `attach`
 * @returns undefined where there is no monitor any more
 */
export async function startStdinKeeper(
  cwd: string,
  socket: string,
  end: string,
): Promise<number | undefined> {
  const child = Bun.spawn([self, "stdin", socket, end], {
    cwd,
    env: { ...cleanEnvironment },
    stdio: ["ignore", "pipe", "ignore", "ignore", program()],
  });
  child.unref();
  const reader = (child.stdout as ReadableStream<Uint8Array>).getReader();
  const { done } = await reader.read();
  await reader.cancel();
  return done ? undefined : child.pid;
}

interface Child {
  readonly pid: number;
  readonly exited: Promise<number>;
  readonly stdin: Bun.FileSink;
  readonly stdout: ReadableStream<Uint8Array>;
  kill(signal: NodeJS.Signals): void;
}

export interface TerminalChild extends Child {
  resize(rows: number, columns: number): void;
}

/**
 * Spawns a program at a terminal of its own, in raw mode, that standard input and output of the child lead to. All that it
 * wrote has been read when standard output ends; whoever is slow to read it slows it. Its exit code is the child's.
 */
export function spawnAtTerminal(
  argv: readonly string[],
  cwd: string,
  size: { readonly rows: number; readonly columns: number },
): TerminalChild {
  const child = Bun.spawn([self, "terminal", String(size.rows), String(size.columns), ...argv], {
    cwd,
    env: { ...cleanEnvironment },
    stdio: ["pipe", "pipe", "ignore", "pipe", program()],
  });
  const control = child.stdio[3] as number;
  const resize = (rows: number, columns: number): void => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    try {
      writeSync(control, `${rows} ${columns}\n`);
    } catch {
      // It ends, or has not looked at the many before.
    }
  };
  const { pid, exited, stdin, stdout } = child;
  return { pid, exited, stdin, stdout, kill: (signal) => child.kill(signal), resize };
}
