import { readFile, rm } from "node:fs/promises";
import { z } from "zod";
import { createProgram, endMonitor } from "../create-step.ts";
import { hostOwner, idExtents, type Owner } from "../files/user-namespace.ts";
import { cgroupOf, type Host } from "../host.ts";
import type { ContainerPaths } from "../layout.ts";
import { attachNetwork, type NetworkPart } from "../network/step.ts";
import { type ContainerState, writeState } from "../state.ts";

const bundleUser = z.object({ process: z.object({ user: z.object({ uid: z.number(), gid: z.number() }) }) });

/**
 * Starts the program of a container again whose process has ended: the same bundle, root with what was written to it, mounts,
 * log and ports; a new process, monitor and network namespace, and so perhaps another address. Safe to repeat after a crash
 * in the middle: what was begun is ended first.
 * @throws RuntimeError
 */
export async function startAgain(
  host: Host,
  paths: ContainerPaths,
  state: ContainerState,
): Promise<ContainerState> {
  await endProgram(host, paths, state);
  const monitored = await createProgram(host, paths, state, await ownerOf(paths, state));
  const network = await attachAgain(host, paths, state, monitored.init.pid);
  await host.oci.start(state.id);
  const { ended: _, ...rest } = state;
  const running: ContainerState = {
    ...rest,
    ...monitored,
    ...network,
    phase: "running",
    startedAt: new Date().toISOString(),
  };
  await writeState(paths.state, running);
  return running;
}

/** Takes away what is the process's alone; its root, mounts, ports and log stay. */
async function endProgram(host: Host, paths: ContainerPaths, { id }: ContainerState): Promise<void> {
  await endMonitor(paths);
  await host.oci.delete(id);
  await host.cgroups.remove(cgroupOf(host, id));
  await host.networks.disconnect(id, paths.network);
  const ofMonitor = [paths.pidFile, paths.monitorPidFile, paths.attach, paths.control, paths.windowSize];
  for (const path of [paths.exitFile, ...ofMonitor]) await rm(path, { force: true });
  await rm(paths.execs, { recursive: true, force: true });
}

/** Whose the program's output is, in the host's numbers; absent: without a user namespace it is so by itself. */
async function ownerOf(paths: ContainerPaths, { idBase }: ContainerState): Promise<Owner | undefined> {
  if (idBase === undefined) return undefined;
  const { process } = bundleUser.parse(JSON.parse(await readFile(paths.config, "utf8")));
  return hostOwner(idExtents(idBase), process.user);
}

async function attachAgain(
  host: Host,
  paths: ContainerPaths,
  { id, address, ports }: ContainerState,
  pid: number,
): Promise<NetworkPart> {
  if (address === undefined) return { ports };
  const wish = { id, network: "private", options: { ports }, publish: undefined } as const;
  return await attachNetwork(host, wish, paths, pid);
}
