import { waitForExit } from "../native/process.ts";
import { errnoOf } from "../std/error.ts";
import type { Owner } from "./files/user-namespace.ts";
import { type Host, monitorCgroup } from "./host.ts";
import type { ContainerPaths } from "./layout.ts";
import { createUnderMonitor, type Monitored, readPid } from "./monitor.ts";
import { giveOutput } from "./output/container-output.ts";
import { identify } from "./process-identity.ts";

export interface CreateKind {
  readonly terminal: boolean;
  readonly stdin: boolean;
}

/** Makes the container of a bundle under a monitor; its process waits to be started. @param owner of its output; absent: root */
export async function createProgram(
  host: Host,
  paths: ContainerPaths,
  { terminal, stdin }: CreateKind,
  owner: Owner | undefined,
): Promise<Monitored> {
  const monitored = await createUnderMonitor(paths, {
    program: host.monitorProgram,
    runtime: host.oci,
    exitsDirectory: host.paths.exits,
    logSizeMaxBytes: host.logSizeMaxBytes,
    terminal,
    stdin,
  });
  if (owner !== undefined) await giveOutput(monitored.init.pid, owner);
  await host.cgroups
    .moveMonitor(monitorCgroup(host), monitored.monitor.pid)
    .catch((error: unknown) =>
      host.logger.warning("the monitor stays in the worker's cgroup", { container: paths.id, error }),
    );
  return monitored;
}

/** A monitor ends by itself with its container; one that hangs is ended, with the runtime that it may still wait for. */
export async function endMonitor(paths: ContainerPaths): Promise<void> {
  const monitor = await identify(await readPid(paths.monitorPidFile));
  if (monitor === undefined) return;
  const commandLine = await Bun.file(`/proc/${monitor.pid}/cmdline`)
    .text()
    .catch(() => "");
  // The number may be another process's by now.
  if (!commandLine.split("\0").includes(paths.home)) return;
  try {
    // It leads a session, and so a process group, of its own.
    process.kill(-monitor.pid, "SIGKILL");
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw error;
  }
  await waitForExit(monitor.pid);
}
