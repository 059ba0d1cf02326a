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
