import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { OpenedImageIndex } from "../index/store.ts";
import type { Trace } from "../index/trace.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { makePrivateFolder } from "../std/private-folder.ts";
import { AdoptedMount } from "./adopted-mount.ts";
import { BackgroundBudget } from "./background-budget.ts";
import { MountError } from "./error.ts";
import { FileLock } from "./file-lock.ts";
import { type HolderSettings, MountHolder } from "./holder.ts";
import { ImageMount, type ImageMountParts, type OrphanedMount } from "./image-mount.ts";
import { LayerCache, type LayerLook } from "./layer-cache.ts";
import { type LazyImage, lease } from "./lazy-image.ts";
import { defaultFetchLimits, type FetchLimits } from "./limits.ts";
import type { MountedImage, MountStats } from "./mounted-image.ts";
import { Predecessors, type StaleMount } from "./predecessors.ts";
import { SharedMount } from "./shared-mount.ts";
import { Transport, type TransportChoice } from "./transport.ts";

/** What it takes for served mounts, and those who read them, to outlive this process. */
export interface HandoverOptions extends HolderSettings {
  /** Opens the index of an image that an earlier process mounted, and the kernel still has. */
  readonly openIndex: (manifestDigest: string, indexSha256: string) => Promise<OpenedImageIndex>;
}

export interface LazyMountsOptions {
  /** Owned by one process at a time: mounts appear under `mounts/`. */
  readonly stateDir: string;
  /** May be shared by processes. */
  readonly cacheDir: string;
  /** Disk that the cache should not exceed; `undefined`: no limit. */
  readonly cacheQuotaBytes?: number | undefined;
  /** Read and check what the cache holds before it is served, whatever its stamp says; see {@link LayerCache.open}. */
  readonly verifyCache?: boolean;
  readonly transport: TransportChoice;
  readonly limits?: Partial<FetchLimits>;
  /** What the background of all mounts together may take of the link; `undefined`: no limit. */
  readonly backgroundBytesPerSecond?: number | undefined;
  /** Absent: a mount that this process serves ends with it. */
  readonly handover?: HandoverOptions | undefined;
}

export interface AcquireOptions {
  readonly workspace: string;
  readonly index: OpenedImageIndex;
  readonly source: BlobSource;
  /** What earlier starts read: fetched at once, in this order, beside what readers wait for. */
  readonly trace?: Trace | undefined;
  /** Take note of what is read, for {@link LazyImage.readSoFar}. */
  readonly takeNotes?: boolean;
  /** Without a trace: bring all of the image from the first moment on, beside what is read. */
  readonly bringAll?: boolean;
  /** Complete the layers while no reader waits. */
  readonly background: boolean;
  /** Resolve only when every layer is in the cache. */
  readonly eager: boolean;
  /** Hears how far an eager mount is. */
  readonly onProgress?: (stats: MountStats) => void;
  /** An existing empty folder to mount at, in place of one under the state directory. */
  readonly target?: string;
  /** Ignore setuid bits and device nodes: for trees that people look into. Containers need both off. */
  readonly restrict?: boolean;
  readonly signal: AbortSignal;
}

export interface MountStatus extends MountStats {
  readonly workspace: string;
  readonly manifestDigest: string;
  readonly root: string;
  readonly transport: string;
  /** Whether the tree can be read only while this process lives. */
  readonly servedByProcess: boolean;
  readonly users: number;
}

/** Mounts images lazily: one mount per workspace and manifest, shared by its users. */
export class LazyMounts {
  readonly #parts: ImageMountParts;
  readonly #mountsDir: string;
  readonly #lock: FileLock;
  readonly #predecessors: Predecessors;
  /** Mounts that were taken over, until somebody is their user. */
  readonly #inherited = new Set<SharedMount>();
  readonly #mounts = new Map<string, SharedMount>();
  readonly #closed = new AbortController();

  private constructor(parts: ImageMountParts, mountsDir: string, lock: FileLock, predecessors: Predecessors) {
    this.#parts = parts;
    this.#mountsDir = mountsDir;
    this.#lock = lock;
    this.#predecessors = predecessors;
  }

  /**
   * Takes the state directory over. Mounts that a dead predecessor served are served on, where it left them with a holder
   * ({@link LazyMountsOptions.handover}); others are cleared. Those of complete layers are alive: see {@link stale}.
   * @throws MountError `busy` when another process has the state directory
   */
  static async create(options: LazyMountsOptions): Promise<LazyMounts> {
    const mountsDir = join(resolve(options.stateDir), "mounts");
    // An image's own modes are for its containers: on this host nobody else is to read its files, nor run what is setuid there.
    await makePrivateFolder(resolve(options.stateDir));
    await mkdir(mountsDir, { recursive: true, mode: 0o755 });
    const lock = await FileLock.takeAlone(join(resolve(options.stateDir), "mounts.lock"));
    if (lock === undefined)
      throw new MountError("busy", `another process uses the state directory ${options.stateDir}`, {
        next: "End it, or give this one a directory of its own.",
      });
    try {
      const { handover } = options;
      const holder = handover && (await MountHolder.open(mountsDir, handover));
      const predecessors = await Predecessors.survey(mountsDir, holder);
      const verify = options.verifyCache === true ? "all" : "stamp";
      const cache = await LayerCache.open(resolve(options.cacheDir), options.cacheQuotaBytes, verify);
      const budget = new BackgroundBudget(options.backgroundBytesPerSecond);
      const limits = { ...defaultFetchLimits, ...options.limits };
      const transport = new Transport(options.transport);
      const mounts = new LazyMounts(
        { cache, transport, limits, budget, holder },
        mountsDir,
        lock,
        predecessors,
      );
      if (handover !== undefined)
        await Promise.all(predecessors.orphans().map((orphan) => mounts.#inherit(orphan, handover)));
      await holder?.dropFound();
      await predecessors.lockFiles(cache);
      await cache.room.evict();
      return mounts;
    } catch (thrown) {
      await lock.release();
      throw thrown;
    }
  }

  /**
   * Mounts an image, or joins those of the workspace who use it already. A mount that is there keeps its source: that this
   * one may serve as well, when those before it leave or are refused, the caller says with {@link LazyImage.replaceSource}.
   * @throws MountError; `cancelled` when the signal fires, which undoes what was begun
   */
  async acquire(options: AcquireOptions): Promise<LazyImage> {
    const { signal } = options;
    const key = mountKey(options.workspace, options.index.index.manifestDigest, options.target);
    for (;;) {
      if (this.#closed.signal.aborted) throw new MountError("cancelled", "this process is ending");
      if (signal.aborted) throw cancelled(signal);
      const joined = this.#mounts.get(key);
      if (joined?.closing !== undefined) {
        await joined.closing.catch(() => undefined);
        continue;
      }
      const shared = joined ?? this.#start(key, options);
      try {
        const image = await shared.join(signal);
        if (joined !== undefined && options.trace !== undefined) image.prefetch(options.trace);
        return await this.#prepare(shared, image, options, joined === undefined);
      } catch (thrown) {
        if (signal.aborted) throw cancelled(signal);
        // Another's attempt failed, perhaps by its credential: it says nothing about ours.
        if (joined === undefined || joined.image !== undefined) throw thrown;
      }
    }
  }

  async #prepare(
    shared: SharedMount,
    image: MountedImage,
    options: AcquireOptions,
    opened: boolean,
  ): Promise<LazyImage> {
    const { eager, background, onProgress, source, signal } = options;
    let own = opened ? source : undefined;
    try {
      if (eager)
        await image.complete(onProgress, signal).catch(async (thrown: unknown) => {
          if (!(thrown instanceof MountError) || thrown.code !== "source_failed") throw thrown;
          image.leadSource(source);
          own = source;
          await image.complete(onProgress, signal);
        });
      if (background) image.startBackground();
      return lease(shared, image, opened, own);
    } catch (thrown) {
      if (own !== undefined) image.withdrawSource(own);
      await shared.leave().catch(() => undefined);
      throw thrown;
    }
  }

  /** What earlier processes left: the dead are cleared already, the living wait for {@link adoptMount} or {@link clear}. */
  stale(): readonly StaleMount[] {
    return this.#predecessors.list();
  }

  /** Counts a living mount of an earlier process as acquired. @throws MountError `mount_failed` when it is not there */
  async adoptMount(root: string): Promise<LazyImage> {
    for (const shared of this.#mounts.values())
      if (shared.root === root && shared.closing === undefined) {
        const image = await shared.join(this.#closed.signal);
        return lease(shared, image, false);
      }
    const mount = await this.#adopt(root);
    if (mount === undefined)
      throw new MountError("mount_failed", `no living mount of an earlier process is at ${root}`, {
        next: "Start the container anew: what was mounted there ended with the process that served it.",
      });
    const key = mountKey(mount.workspace, mount.manifestDigest, this.#targetOf(root));
    const shared = this.#share(key, root, async () => mount);
    return lease(shared, await shared.join(this.#closed.signal), false);
  }

  /** Unmounts a living mount of an earlier process that nobody adopted. Does nothing for any other. */
  async clear(root: string): Promise<void> {
    for (const shared of this.#inherited)
      if (shared.root === root && shared.users === 0) await shared.leave();
    await this.#predecessors.clear(root);
  }

  /** Clears every living mount of earlier processes that nobody adopted. */
  async clearStale(): Promise<void> {
    for (const { root } of this.#inherited) await this.clear(root);
    for (const root of this.#predecessors.remaining()) await this.clear(root);
  }

  status(): MountStatus[] {
    return [...this.#mounts.values()].flatMap((shared) => {
      const { image, users } = shared;
      if (image === undefined) return [];
      const { workspace, manifestDigest, root, transport, servedByProcess } = image;
      return [{ workspace, manifestDigest, root, transport, servedByProcess, users, ...image.stats() }];
    });
  }

  /** What the cache has of an image's layers, in their order; `undefined` for one that another process writes. */
  async cached(index: OpenedImageIndex): Promise<(LayerLook | undefined)[]> {
    const looks: (LayerLook | undefined)[] = [];
    for (const layer of index.layers) looks.push(await this.#parts.cache.look(layer, layer.spanPath));
    return looks;
  }

  /**
   * Ends: mounts that nobody uses any more are gone, those that this process serves are taken away from their users
   * (who get EIO), those of complete layers stay for the next process. Idempotent.
   */
  async close(): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(new MountError("cancelled", "this process is ending"));
    for (const shared of [...this.#mounts.values()])
      await shared.end().catch((thrown: unknown) => {
        logger("mount").error("a mount could not be ended", { root: shared.root, error: messageOf(thrown) });
      });
    // One that the last mount's end began still has files of the cache open.
    await this.#parts.cache.room.evict();
    await this.#parts.holder?.close();
    await this.#lock.release();
  }

  /** Goes on serving an earlier process's mount. What cannot be served is cleared: its readers get errors, now. */
  async #inherit(orphan: OrphanedMount, handover: HandoverOptions): Promise<void> {
    const { dir, record } = orphan;
    const { root, workspace, manifestDigest, served } = record;
    let mount: ImageMount | undefined;
    try {
      const index = await handover.openIndex(manifestDigest, served?.indexSha256 ?? "");
      mount = await ImageMount.adopt(this.#parts, orphan, index);
    } catch (error) {
      logger("mount").error("a mount of an earlier process cannot be served on", { root, error });
    }
    if (mount === undefined) {
      await this.#parts.holder?.drop(dir);
      await this.#predecessors.bury(dir, root);
      return;
    }
    const image = mount;
    const key = mountKey(workspace, manifestDigest, this.#targetOf(root));
    const shared = this.#share(key, root, async () => image);
    this.#inherited.add(shared);
  }

  #targetOf(root: string): string | undefined {
    return root.startsWith(`${this.#mountsDir}/`) ? undefined : root;
  }

  #start(key: string, options: AcquireOptions): SharedMount {
    const dir = join(this.#mountsDir, key);
    const root = options.target === undefined ? join(dir, "root") : resolve(options.target);
    return this.#share(key, root, async (signal): Promise<MountedImage> => {
      const adopted = await this.#adopt(root);
      if (adopted !== undefined) return adopted;
      const { workspace, index: image, source, eager, onProgress, trace } = options;
      const restrict = options.restrict ?? false;
      const takeNotes = options.takeNotes ?? false;
      const bringAll = options.bringAll ?? false;
      return await ImageMount.open(
        this.#parts,
        { workspace, image, source, eager, onProgress, trace, takeNotes, bringAll, dir, root, restrict },
        signal,
      );
    });
  }

  #share(key: string, root: string, open: (signal: AbortSignal) => Promise<MountedImage>): SharedMount {
    const shared = new SharedMount(root, open, () => {
      if (this.#mounts.get(key) === shared) this.#mounts.delete(key);
      this.#inherited.delete(shared);
    });
    this.#mounts.set(key, shared);
    return shared;
  }

  async #adopt(root: string): Promise<AdoptedMount | undefined> {
    const found = this.#predecessors.take(root);
    return found && new AdoptedMount(found.dir, found.record, found.locks);
  }
}

function cancelled(signal: AbortSignal): MountError {
  return new MountError("cancelled", "mounting was cancelled", { cause: signal.reason });
}

function mountKey(workspace: string, manifestDigest: string, target: string | undefined): string {
  const name = [workspace, manifestDigest, target === undefined ? "" : resolve(target)].join("\0");
  return createHash("sha256").update(name).digest("hex").slice(0, 32);
}
