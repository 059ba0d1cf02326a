import { readSpanHeader } from "../index/span-file.ts";
import type { LayerLook } from "../mount/layer-cache.ts";
import type { LazyMounts, MountStatus } from "../mount/lazy-mount.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { waitFor } from "../std/wait.ts";
import { RuntimeError } from "./error.ts";
import type { VolumeName } from "./files/volumes.ts";
import {
  HeldContainer,
  type HeldImage,
  type HoldDependencies,
  type WorkerContainerRequest,
} from "./held-container.ts";
import type { ImageUser } from "./image/image-access.ts";
import { beginMounting, type MountRequest } from "./image/image-mounting.ts";
import { PreparedMounts } from "./image/prepared-mounts.ts";
import type { LogPart } from "./output/log-start.ts";
import { OutputReview } from "./output/output-review.ts";
import { Forwarder } from "./requests/forwarder.ts";
import type { SchedulerClient } from "./scheduler-client.ts";
import type { LogChunk } from "./spec.ts";

/** What a worker has of an image. */
export interface LazyStatus {
  readonly layers: readonly {
    readonly digest: string;
    /** As the registry stores it. */
    readonly sizeBytes: number;
    readonly spansTotal: number;
    /** Absent: another process writes it. */
    readonly look: LayerLook | undefined;
  }[];
  readonly mounts: readonly MountStatus[];
}

const log = logger("worker");
const shutdownStopTimeoutMs = 10_000;

/** The containers of this host: taken up, adopted, stopped; told to the scheduler. */
export class Worker {
  readonly #dependencies: HoldDependencies & { readonly mounts: LazyMounts };
  readonly #held = new Map<string, HeldContainer>();
  /** The containers that serve HTTP, and their requests. */
  readonly forwarder = new Forwarder();
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  #closed = false;

  constructor(
    dependencies: Omit<HoldDependencies, "prepared" | "forwarder"> & { readonly mounts: LazyMounts },
  ) {
    const prepared = new PreparedMounts((request) => beginMounting(dependencies, request));
    this.#dependencies = { ...dependencies, prepared, forwarder: this.forwarder };
  }

  /**
   * Goes on where the process before this one ended: containers whose image still answers are adopted, those whose
   * mount died with it are ended and reported, and mounts that nobody uses are cleared.
   */
  async adopt(): Promise<void> {
    const { runtime, mounts } = this.#dependencies;
    const stale = new Map(mounts.stale().map((mount) => [mount.root, mount]));
    for (const running of await runtime.adopt()) {
      const mount = stale.get(running.imageRoot);
      const clear: HeldImage = { release: () => mounts.clear(running.imageRoot) };
      if (running.goesOn() && mount?.alive === true) {
        const image = await mounts.adoptMount(running.imageRoot);
        this.#keep(HeldContainer.adopt(this.#dependencies, running, image, mount.manifestDigest));
        log.info("container adopted", { container: running.id });
      } else if (running.goesOn()) {
        log.warn("ending a container whose image's mount died with the worker", { container: running.id });
        this.#keep(HeldContainer.adoptLost(this.#dependencies, running, clear));
      } else {
        this.#keep(HeldContainer.adoptEnded(this.#dependencies, running, clear));
      }
    }
    await mounts.clearStale();
    await this.#dependencies.code.endAdoption(new Set(this.#held.keys()));
  }

  /** Beats every `intervalMs` until {@link close}. */
  startHeartbeat(client: SchedulerClient, intervalMs: number): void {
    const output = new OutputReview(this.#dependencies.runtime, (id) => this.#held.has(id));
    const beat = async () => {
      const held = [...this.#held.values()];
      const { remove, forgotten } = await client.heartbeat({
        cpuMillisUsed: held.reduce((sum, container) => sum + container.cpuMillis, 0),
        memoryBytesUsed: held.reduce((sum, container) => sum + container.memoryBytes, 0),
        containerIds: held.map(({ id }) => id),
        outputIds: await output.next(),
      });
      for (const id of remove) void this.#held.get(id)?.stop(1);
      await output.remove(forgotten);
    };
    this.#heartbeat = setInterval(() => {
      beat().catch((error) => log.warn("a heartbeat was not answered", { error: messageOf(error) }));
    }, intervalMs);
  }

  containerIds(): string[] {
    return [...this.#held.keys()];
  }

  find(id: string): HeldContainer | undefined {
    return this.#held.get(id);
  }

  /** Begins to mount the image of a container that is to be handed over. */
  prepare(request: MountRequest & Pick<ImageUser, "containerId" | "attempt">): void {
    const held = this.#held.get(request.containerId);
    if (this.#closed || (held !== undefined && held.attempt >= request.attempt)) return;
    this.#dependencies.prepared.prepare(request);
  }

  /** No hand-over follows what was prepared. */
  dropPrepared(container: Pick<ImageUser, "containerId" | "attempt">): void {
    this.#dependencies.prepared.drop(container);
  }

  /** Takes a container up. Repeating it changes nothing; a later attempt replaces an earlier one. */
  async start(request: WorkerContainerRequest): Promise<void> {
    const { containerId, attempt } = request;
    // Seen again after each wait: a repeat of this request may have come first.
    for (let held = this.#held.get(containerId); held !== undefined; held = this.#held.get(containerId)) {
      if (held.attempt >= attempt) return;
      await held.stop(1);
    }
    if (this.#closed) throw new RuntimeError("cancelled", "this worker is shutting down");
    this.#keep(HeldContainer.start(this.#dependencies, request));
  }

  /** Removes a volume, with what is in it. @throws RuntimeError `volume` while a container uses it */
  async removeVolume(volume: VolumeName): Promise<void> {
    await this.#dependencies.runtime.removeVolume(volume);
  }

  /** What is here of a workspace's image. @throws IndexError when its index is not here */
  async lazyStatus(workspaceId: string, manifestDigest: string, indexSha256: string): Promise<LazyStatus> {
    const { index, mounts } = this.#dependencies;
    const opened = await index.openImage(manifestDigest, indexSha256);
    const looks = await mounts.cached(opened);
    return {
      layers: opened.layers.map((layer, number) => {
        const look = looks[number];
        const spansTotal = readSpanHeader(layer.spanPath).spanCount;
        return { digest: layer.digest, sizeBytes: layer.sizeBytes, spansTotal, look };
      }),
      mounts: mounts
        .status()
        .filter((mount) => mount.workspace === workspaceId && mount.manifestDigest === manifestDigest),
    };
  }

  /** Removes a container's output, and what else there may be of one that is known to have ended. */
  async removeOutput(id: string): Promise<void> {
    await this.#held.get(id)?.stop(1);
    await this.#dependencies.runtime.removeLog(id);
  }

  logs(id: string, follow: boolean, part: LogPart, signal: AbortSignal): AsyncIterable<LogChunk> {
    return this.#dependencies.runtime.logs(id, { follow, part, signal });
  }

  /**
   * Leaves the containers to their monitors, for the next process: those that are just being started come up first, and
   * requests that containers have are answered, as far as they are in time.
   */
  async leave(timeoutMs: number): Promise<void> {
    this.#closed = true;
    clearInterval(this.#heartbeat);
    await this.#dependencies.prepared.close();
    const begun = Promise.all([...this.#held.values()].map((held) => held.begun));
    await Promise.all([
      waitFor(begun, AbortSignal.timeout(timeoutMs)).catch(() => undefined),
      this.forwarder.leave(timeoutMs),
    ]);
    await this.#dependencies.runtime.close();
  }

  /** Ends all containers at once and takes no more: they are not this worker's any longer. */
  async giveUp(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#heartbeat);
    await Promise.all([
      this.#dependencies.prepared.close(),
      ...[...this.#held.values()].map((held) => held.stop(1)),
    ]);
    await this.#dependencies.runtime.close();
  }

  /** Stops all containers, at most for a while each, and returns when nothing of them is left. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#heartbeat);
    await Promise.all([
      this.#dependencies.prepared.close(),
      ...[...this.#held.values()].map((held) => held.stop(shutdownStopTimeoutMs)),
    ]);
    await this.#dependencies.runtime.close();
  }

  #keep(held: HeldContainer): void {
    this.#held.set(held.id, held);
    void held.done.then(() => {
      if (this.#held.get(held.id) === held) this.#held.delete(held.id);
    });
  }
}
