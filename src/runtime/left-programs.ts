import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { ProcessHandle } from "../native/process.ts";
import type { ContainerPaths } from "./layout.ts";
import { readPid } from "./monitor.ts";
import { isContainerId } from "./spec.ts";

/**
 * Ends the programs that the process before this one ran in a container beside its own: whoever wanted them is not connected
 * any more. Their numbers are in the directories that they had.
 */
export async function endLeftPrograms(paths: ContainerPaths): Promise<void> {
  const entries = await readdir(paths.execs, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isDirectory()) continue;
    const directory = join(paths.execs, entry.name);
    const pid = await readPid(join(directory, "pid"));
    if (pid > 0) await endInside(pid, paths.id);
    await rm(directory, { recursive: true, force: true });
  }
}

/** The number may be another process's by now: only one in the container's cgroup is meant. */
async function endInside(pid: number, id: string): Promise<void> {
  let handle: ProcessHandle | undefined;
  try {
    handle = ProcessHandle.open(pid);
    const cgroups = await readFile(`/proc/${pid}/cgroup`, "utf8");
    if (isContainerId(id) && cgroups.split(/[/\n]/).includes(id)) handle.killGroup();
  } catch {
    // It has ended.
  } finally {
    handle?.close();
  }
}
