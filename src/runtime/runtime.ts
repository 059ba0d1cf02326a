import { rmdirSync } from "node:fs";
import { chmod, mkdir, readdir, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errnoOf } from "../std/error.ts";
import type { Logger } from "../std/log.ts";
import { Cgroups } from "./cgroups.ts";
import { RunningContainer } from "./container.ts";
import { cancelled, RuntimeError } from "./error.ts";
import { ExitWatch } from "./exit-watch.ts";
import { IdRanges, userNamespaceProblem } from "./files/user-namespace.ts";
import { type VolumeName, Volumes } from "./files/volumes.ts";
import { defaultMkfsProgram } from "./files/writable-layer.ts";
import { defaultCgroupParent, type Host } from "./host.ts";
import { containerPaths, statePaths } from "./layout.ts";
import { endLeftPrograms } from "./left-programs.ts";
import { PrivateNetworks } from "./network/network.ts";
import { defaultNetworkSettings, type NetworkSettings } from "./network/settings.ts";
import { findProgram, OciRuntime, type RuntimeName } from "./oci-runtime.ts";
import { DirectoryWatch } from "./output/directory-watch.ts";
import { removeLogFiles } from "./output/log-holder.ts";
import { readLog } from "./output/log-reader.ts";
import type { LogPart } from "./output/log-start.ts";
import { cgroupProblem } from "./probe.ts";
import { bootId, isAlive } from "./process-identity.ts";
import { type ContainerSpec, checkSpec, isContainerId, type LogChunk } from "./spec.ts";
import { removeContainer, startSteps } from "./start-steps.ts";
import { type ContainerState, readState } from "./state.ts";
import { doSteps } from "./steps.ts";

const logSizeMaxBytesDefault = 16 * 1024 * 1024;

export interface RuntimeOptions {
  /** On a local disk; holds writable layers, logs and what a later process needs to adopt containers. */
  readonly stateDir: string;
  readonly runtime: RuntimeName;
  /** Name or path of the monitor; absent: `conmon`. */
  readonly conmon?: string;
  readonly logger: Logger;
  /** Whether containers get user namespaces of their own where that is possible; absent: `auto`. */
  readonly userNamespaces?: "auto" | "off";
  /** Of a container's writable layer, where it asks for none or more; absent or 0: none. */
  readonly storageLimitBytes?: number;
  /** Name or path of what makes ext4 file systems; absent: `mkfs.ext4`. */
  readonly mkfs?: string;
  /** The cgroup above the containers' own; absent: `oci-node`. */
  readonly cgroupParent?: string;
  /** A log that would grow beyond it begins anew, and one generation before it is kept; absent: 16 MiB. */
  readonly logSizeMaxBytes?: number;
  /** Of private networks; absent: the defaults. */
  readonly network?: NetworkSettings;
}

/** Runs containers through an OCI runtime, each under a monitor of its own that outlives this process. */
export class Runtime {
  readonly #host: Host;
  readonly #containers = new Map<string, RunningContainer>();
  readonly #starting = new Map<string, Promise<RunningContainer>>();

  private constructor(host: Host) {
    this.#host = host;
  }

  /** @throws RuntimeError `runtime_missing`, or `cgroup` when the runtime cannot work with this host's cgroups */
  static async create(options: RuntimeOptions): Promise<Runtime> {
    const paths = statePaths(options.stateDir);
    for (const directory of Object.values(paths)) await mkdir(directory, { recursive: true, mode: 0o700 });
    const cgroups = await Cgroups.detect();
    const problem = cgroupProblem(options.runtime, cgroups.mode);
    if (problem !== undefined)
      throw new RuntimeError("cgroup", problem, { next: "See what this host lacks: `oci-node doctor`." });
    await openWays(paths.roots);
    const volumes = new Volumes(paths.volumes);
    await volumes.clear();
    const noUserNamespaces = await whyNoUserNamespaces(options);
    return new Runtime({
      paths,
      oci: new OciRuntime(options.runtime, findProgram(options.runtime), paths.runtimeRoot),
      monitorProgram: findProgram(options.conmon ?? "conmon"),
      cgroups,
      cgroupParent: options.cgroupParent ?? defaultCgroupParent,
      networks: new PrivateNetworks({
        settings: options.network ?? defaultNetworkSettings,
        stateDir: options.stateDir,
        marker: join(dirname(paths.exits), "firewall"),
        logger: options.logger,
      }),
      exits: new ExitWatch(paths.exits),
      logWatch: new DirectoryWatch(paths.logs),
      logSizeMaxBytes: options.logSizeMaxBytes ?? logSizeMaxBytesDefault,
      logger: options.logger,
      ids: new IdRanges(),
      volumes,
      storageLimitBytes: options.storageLimitBytes ?? 0,
      mkfsProgram: options.mkfs ?? defaultMkfsProgram,
      noUserNamespaces,
    });
  }

  /**
   * Starts a container: overlay, bundle, monitor, process. What a start that fails or is aborted has made is gone again.
   * @throws RuntimeError
   */
  async start(spec: ContainerSpec, signal: AbortSignal): Promise<RunningContainer> {
    checkSpec(spec);
    if (this.#containers.has(spec.id) || this.#starting.has(spec.id)) throw exists(spec.id);
    const started = this.#start(spec, signal).finally(() => this.#starting.delete(spec.id));
    this.#starting.set(spec.id, started);
    return started;
  }

  /**
   * Finds the containers of the process before this one: those that run, and those that ended meanwhile (their `exited`
   * resolves at once). What it had only half made is removed.
   */
  async adopt(): Promise<RunningContainer[]> {
    const adopted: RunningContainer[] = [];
    for (const id of await readdir(this.#host.paths.containers)) {
      if (this.#containers.has(id) || this.#starting.has(id) || !isContainerId(id)) continue;
      const paths = containerPaths(this.#host.paths, id);
      const state = await readState(paths.state);
      if (state !== undefined && (await this.#wasStarted(state))) {
        const sameBoot = state.bootId === (await bootId());
        if (sameBoot && state.address !== undefined) await this.#host.networks.adopt(id, state.ports);
        await endLeftPrograms(paths);
        adopted.push(this.#keep(state, sameBoot));
        continue;
      }
      this.#host.logger.warning("removing a container that was only half made", { container: id });
      await removeContainer(this.#host, paths).catch((error: unknown) =>
        this.#host.logger.error("a half-made container could not be removed", { container: id, error }),
      );
      await this.removeLog(id);
    }
    return adopted;
  }

  /**
   * A container's output from the oldest byte that is kept. With `follow` it goes on until the container has ended;
   * it ends quietly when the signal fires.
   * @throws RuntimeError `not_found`
   */
  async *logs(
    id: string,
    options: { readonly follow?: boolean; readonly signal?: AbortSignal; readonly part?: LogPart } = {},
  ): AsyncGenerator<LogChunk, void, undefined> {
    const ended =
      this.#containers.get(id)?.exited ?? this.#starting.get(id)?.then((container) => container.exited);
    const paths = isContainerId(id) ? containerPaths(this.#host.paths, id) : undefined;
    if (paths === undefined || (ended === undefined && !(await isThere(paths.log)))) {
      throw new RuntimeError("not_found", `there is no log of container ${id} here`);
    }
    yield* readLog(paths, {
      watch: this.#host.logWatch,
      ...(options.follow && ended !== undefined ? { ended } : {}),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      ...(options.part === undefined ? {} : { part: options.part }),
    });
  }

  /** Removes a container's log, also of one that is not known any more. */
  async removeLog(id: string): Promise<void> {
    if (isContainerId(id)) await removeLogFiles(containerPaths(this.#host.paths, id));
  }

  /** Removes a volume, with what is in it. @throws RuntimeError `volume` while a container uses it */
  async removeVolume(volume: VolumeName): Promise<void> {
    await this.#host.volumes.remove(volume);
  }

  /** The containers whose logs are here. */
  async logged(): Promise<string[]> {
    const names = await readdir(this.#host.paths.logs);
    return [...new Set(names.map((name) => name.replace(/\.log.*$/, "")))].filter(isContainerId);
  }

  /** Stops watching; the containers run on, and the `exited` of those that run stays pending. */
  async close(): Promise<void> {
    this.#host.exits.close();
    this.#host.logWatch.close();
    await this.#host.networks
      .close()
      .catch((error: unknown) =>
        this.#host.logger.error("the firewall rules of containers could not be removed", { error }),
      );
    const { containers, exits, runtimeRoot, roots, execs } = this.#host.paths;
    // The monitors of those that run on write how they end into a folder that may be empty until then.
    if ((await readdir(containers)).length > 0) return;
    for (const directory of [exits, runtimeRoot, roots, execs, dirname(exits)]) removeIfEmpty(directory);
  }

  async #start(spec: ContainerSpec, signal: AbortSignal): Promise<RunningContainer> {
    const paths = containerPaths(this.#host.paths, spec.id);
    if (await isThere(paths.home)) throw exists(spec.id);
    try {
      const [steps, draft] = startSteps(this.#host, spec, paths, signal);
      await doSteps(steps, signal, this.#host.logger);
      return this.#keep(draft.state!, true);
    } catch (error) {
      await removeLogFiles(paths);
      if (signal.aborted) throw cancelled(spec.id, error);
      throw error;
    }
  }

  /** A crash between the start and its record leaves `created`: the runtime knows better. */
  async #wasStarted(state: ContainerState): Promise<boolean> {
    if (state.phase !== "created") return true;
    if (!isAlive(state.init)) return (await this.#host.exits.read(state.id)) !== undefined;
    return (await this.#host.oci.status(state.id)) === "running";
  }

  #keep(state: ContainerState, sameBoot: boolean): RunningContainer {
    const paths = containerPaths(this.#host.paths, state.id);
    const { workspaceId } = state;
    this.#host.volumes.keep(
      state.volumes.map((name) => ({ workspaceId, name })),
      state.id,
    );
    if (state.idBase !== undefined) this.#host.ids.keep(state.id, state.idBase);
    const container = new RunningContainer(this.#host, paths, state, sameBoot, () =>
      this.#containers.delete(state.id),
    );
    this.#containers.set(state.id, container);
    return container;
  }
}

/** Why containers are to have no user namespaces; written down where it is not as the operator wanted. */
async function whyNoUserNamespaces(options: RuntimeOptions): Promise<string | undefined> {
  if (options.userNamespaces === "off") return "worker.user_namespaces is off";
  const problem = await userNamespaceProblem(options.runtime, options.stateDir);
  if (problem !== undefined)
    options.logger.warning("containers get no user namespaces of their own", { why: problem });
  return problem;
}

/** Whoever knows a container's name may come to the folder of its root, which lets in its own root user alone. */
async function openWays(roots: string): Promise<void> {
  for (const directory of [dirname(dirname(roots)), dirname(roots), roots]) await chmod(directory, 0o711);
}

function exists(id: string): RuntimeError {
  return new RuntimeError("exists", `container ${id} is here already`, {
    next: "Adopt what an earlier process left, or clean the container up first.",
  });
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** What is not empty is still needed by something. */
function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno !== "ENOTEMPTY" && errno !== "ENOENT") throw error;
  }
}
