import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../std/atomic-file.ts";

const runDir = "/run/oci-node/mounts";

const schema = z.object({
  directory: z.string(),
  reference: z.string(),
  pid: z.number().int(),
  /** Field 22 of /proc/PID/stat: tells a process from a later one with the same number. */
  startTicks: z.string(),
});

/** Who serves the mount at a folder. */
export type MountState = z.infer<typeof schema>;

export interface MountPaths {
  readonly directory: string;
  readonly base: string;
  readonly state: string;
  readonly log: string;
  /** The lazy mount's own folder. */
  readonly mounts: string;
}

export function mountPaths(directory: string): MountPaths {
  const absolute = resolve(directory);
  const base = join(runDir, createHash("sha256").update(absolute).digest("hex").slice(0, 16));
  return {
    directory: absolute,
    base,
    state: join(base, "state.json"),
    log: join(base, "log"),
    mounts: join(base, "mounts"),
  };
}

export function readMountState(paths: MountPaths): MountState | undefined {
  try {
    return schema.parse(JSON.parse(readFileSync(paths.state, "utf8")));
  } catch {
    return undefined;
  }
}

export async function writeMountState(paths: MountPaths, reference: string): Promise<void> {
  const state: MountState = {
    directory: paths.directory,
    reference,
    pid: process.pid,
    startTicks: startTicksOf(process.pid) ?? "",
  };
  await writeFileAtomic(paths.state, JSON.stringify(state), 0o600);
}

/** Whether the process that wrote a state still lives. */
export function isServing(state: MountState): boolean {
  return startTicksOf(state.pid) === state.startTicks;
}

export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name in parentheses may hold spaces: count the fields after it.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

/** Whether something is mounted at a folder (proc(5), mountinfo; the path's field is octal-escaped there). */
export function isMountPoint(directory: string): boolean {
  const wanted = directory.replace(
    /[\\ \t\n]/g,
    (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, "0")}`,
  );
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[4] === wanted);
}
