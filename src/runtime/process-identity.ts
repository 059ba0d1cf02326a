import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** A process that cannot be mistaken for a later one of the same number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between boot and the process's start: field 22 of proc_pid_stat(5). */
  readonly startTicks: string;
}

/** The identity of a living process; `undefined` when there is none, or only a zombie. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  try {
    return parseStat(pid, await readFile(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return undefined;
  }
}

/** Whether that very process lives (a zombie does not). */
export function isAlive(identity: ProcessIdentity): boolean {
  try {
    const now = parseStat(identity.pid, readFileSync(`/proc/${identity.pid}/stat`, "utf8"));
    return now?.startTicks === identity.startTicks;
  } catch {
    return false;
  }
}

function parseStat(pid: number, stat: string): ProcessIdentity | undefined {
  // The command's name stands in parentheses and may hold any character.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const startTicks = fields[19];
  if (fields[0] === "Z" || fields[0] === "X" || startTicks === undefined) return undefined;
  return { pid, startTicks };
}

let bootIdRead: Promise<string> | undefined;

/** Differs after each boot of the host: process ids and mounts of another boot mean nothing. */
export function bootId(): Promise<string> {
  bootIdRead ??= readFile("/proc/sys/kernel/random/boot_id", "utf8").then((text) => text.trim());
  return bootIdRead;
}
