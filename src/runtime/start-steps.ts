import { mkdir, rm } from "node:fs/promises";
import { volumeNames } from "../container/check-options.ts";
import { signalNumber } from "../std/signals.ts";
import { waitFor } from "../std/wait.ts";
import { writeBundle } from "./bundle.ts";
import { createProgram, endMonitor } from "./create-step.ts";
import { RuntimeError } from "./error.ts";
import { attachTrees, detachTrees } from "./files/attached-trees.ts";
import { type BundleMount, containerMounts } from "./files/container-mounts.ts";
import { mountRoot, type RootFileSystem, unmountRoot } from "./files/root-file-system.ts";
import { dropSecretFiles, writeSecretFiles } from "./files/secret-files.ts";
import { type ContainerUser, resolveUser } from "./files/user.ts";
import { hostOwner } from "./files/user-namespace.ts";
import { cgroupOf, type Host } from "./host.ts";
import type { ContainerPaths } from "./layout.ts";
import type { Monitored } from "./monitor.ts";
import { attachNetwork, checkNetwork, type NetworkPart } from "./network/step.ts";
import { removeLogFiles } from "./output/log-holder.ts";
import { bootId } from "./process-identity.ts";
import { containerArgv } from "./process-section.ts";
import type { ContainerSpec } from "./spec.ts";
import { type ContainerState, writeState } from "./state.ts";
import type { Step } from "./steps.ts";

const defaultStopSignal = 15;

/** What the steps of a start hand to one another. */
interface Draft {
  user?: ContainerUser;
  root?: RootFileSystem;
  mounts?: BundleMount[];
  monitored?: Monitored;
  network?: NetworkPart;
  state?: ContainerState;
}

/** A start as an ordered list; `draft.state` is set when all are done. */
export function startSteps(
  host: Host,
  spec: ContainerSpec,
  paths: ContainerPaths,
  signal: AbortSignal,
): [Step[], Draft] {
  const draft: Draft = {};
  const undo = undos(host, paths);
  const steps: Step[] = [
    { name: "check", do: () => check(host, spec, draft, signal), undo: async () => undefined },
    { name: "directory", do: () => makeHome(host, spec, paths), undo: undo.home },
    {
      name: "overlay",
      do: async () => {
        draft.root = await mountRoot(host, spec, paths);
      },
      undo: undo.overlay,
    },
    { name: "mounts", do: () => prepareMounts(host, spec, paths, draft, signal), undo: undo.mounts },
    {
      name: "bundle",
      do: async () => {
        const support = { swap: await host.cgroups.limitsSwap(), pids: host.cgroups.limits("pids") };
        await writeBundle(
          spec,
          draft.user!,
          draft.root!,
          draft.mounts!,
          paths,
          cgroupOf(host, spec.id),
          support,
        );
      },
      undo: async () => undefined,
    },
    { name: "create", do: () => create(host, spec, paths, draft), undo: undo.create },
    {
      name: "network",
      do: async () => {
        draft.network = await attachNetwork(host, spec, paths, draft.monitored!.init.pid);
      },
      undo: undo.network,
    },
    { name: "start", do: () => start(host, spec, paths, draft), undo: async () => undefined },
  ];
  return [steps, draft];
}

/** Removes all of a container but its log, whoever made it and however far it came. Safe to repeat. */
export async function removeContainer(host: Host, paths: ContainerPaths): Promise<void> {
  const undo = undos(host, paths);
  await undo.create();
  // After the create of which it is: it waits for no process of the container.
  await undo.network();
  await undo.mounts();
  await undo.overlay();
  await undo.home();
}

function undos(host: Host, paths: ContainerPaths) {
  return {
    create: async (): Promise<void> => {
      await endMonitor(paths);
      await host.oci.delete(paths.id);
      await host.cgroups.remove(cgroupOf(host, paths.id));
    },
    network: (): Promise<void> => host.networks.detach(paths.id, paths.network),
    mounts: async (): Promise<void> => {
      await dropSecretFiles(paths.secrets);
      await detachTrees(host, paths);
    },
    overlay: (): Promise<void> => unmountRoot(host, paths),
    home: async (): Promise<void> => {
      await rm(paths.home, { recursive: true, force: true });
      await rm(paths.exitFile, { force: true });
      await rm(paths.execs, { recursive: true, force: true });
    },
  };
}

async function check(host: Host, spec: ContainerSpec, draft: Draft, signal: AbortSignal): Promise<void> {
  containerArgv(spec.imageConfig, spec.command, spec.options.entrypoint);
  stopSignal(spec);
  checkNetwork(host, spec);
  checkLimit(host, "memory", spec.memoryBytes);
  checkLimit(host, "cpu", spec.cpuMillis);
  checkLimit(host, "pids", spec.options.pidsLimit);
  // The image's files may be far away: leaving the wait is safe, because it only reads.
  draft.user = await waitFor(
    resolveUser(spec.imageRoot, spec.options.user || spec.imageConfig.config.User),
    signal,
  );
}

function checkLimit(host: Host, resource: "memory" | "cpu" | "pids", wanted: number | undefined): void {
  if (!wanted || host.cgroups.limits(resource)) return;
  throw new RuntimeError("cgroup", `this host cannot limit the ${resource} of a container`, {
    next: `Enable the ${resource} cgroup controller, or run without the limit; see \`oci-node doctor\`.`,
  });
}

async function makeHome(host: Host, spec: ContainerSpec, paths: ContainerPaths): Promise<void> {
  await mkdir(paths.home, { mode: 0o700 });
  await rm(paths.exitFile, { force: true });
  await removeLogFiles(paths);
  host.logger.debug("made the container's directory", { container: spec.id, attempt: spec.attempt });
}

async function prepareMounts(
  host: Host,
  spec: ContainerSpec,
  paths: ContainerPaths,
  draft: Draft,
  signal: AbortSignal,
): Promise<void> {
  const { ids } = draft.root!;
  const secrets = await writeSecretFiles(paths.secrets, spec, hostOwner(ids, draft.user!));
  const trees = await attachTrees(host, spec, paths, ids, signal);
  draft.mounts = containerMounts(spec, trees, secrets);
}

async function create(host: Host, spec: ContainerSpec, paths: ContainerPaths, draft: Draft): Promise<void> {
  const { ids } = draft.root!;
  const owner = ids === undefined ? undefined : hostOwner(ids, draft.user!);
  draft.monitored = await createProgram(host, paths, spec.options, owner);
}

async function start(host: Host, spec: ContainerSpec, paths: ContainerPaths, draft: Draft): Promise<void> {
  const { init, monitor } = draft.monitored!;
  const created: ContainerState = {
    version: 1,
    id: spec.id,
    attempt: spec.attempt,
    workspaceId: spec.workspaceId,
    imageRoot: spec.imageRoot,
    ...(draft.root?.idBase === undefined ? {} : { idBase: draft.root.idBase }),
    volumes: volumeNames(spec.options),
    stopSignal: stopSignal(spec),
    terminal: spec.options.terminal,
    stdin: spec.options.stdin,
    restarts: { ...spec.options.restart, count: 0, delayMs: 0 },
    phase: "created",
    bootId: await bootId(),
    init,
    monitor,
    startedAt: new Date().toISOString(),
    ...draft.network!,
    serving: spec.serving,
  };
  await writeState(paths.state, created);
  await host.oci.start(spec.id);
  draft.state = { ...created, phase: "running" };
  await writeState(paths.state, draft.state);
}

function stopSignal(spec: ContainerSpec): number {
  const text = spec.imageConfig.config.StopSignal;
  if (text === "") return defaultStopSignal;
  const number = signalNumber(text);
  if (number !== undefined) return number;
  throw new RuntimeError("bad_config", `the image's stop signal ${JSON.stringify(text)} is not a signal`);
}
