import type { OpenedImageIndex } from "../index/store.ts";
import type { StartTrace, Trace } from "../index/trace.ts";
import { Engine } from "../native/engine.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { logger } from "../std/log.ts";
import { AwaitedSource } from "./awaited-source.ts";
import type { BackgroundBudget } from "./background-budget.ts";
import { toMountError } from "./errno.ts";
import { MountError } from "./error.ts";
import { released } from "./failure.ts";
import { FetchAhead } from "./fetch-ahead.ts";
import { Fetcher } from "./fetcher.ts";
import type { MountHolder } from "./holder.ts";
import type { CachedLayer, LayerCache } from "./layer-cache.ts";
import { LayerFetch } from "./layer-fetch.ts";
import { LayeredMount } from "./layered-mount.ts";
import { deadlineGraceMs, type FetchLimits } from "./limits.ts";
import { routeMisses } from "./miss-routes.ts";
import { type MountRecord, removeMountDir, writeRecord } from "./mount-record.ts";
import type { MountedImage, MountStats } from "./mounted-image.ts";
import { StartNotes } from "./start-notes.ts";
import type { Transport, TransportName } from "./transport.ts";
import { verifyDevices } from "./verify-devices.ts";

export interface ImageMountRequest {
  readonly workspace: string;
  readonly image: OpenedImageIndex;
  readonly source: BlobSource;
  /** Bring all layers before mounting: the mount then needs no process. */
  readonly eager: boolean;
  readonly onProgress?: ((stats: MountStats) => void) | undefined;
  /** What earlier starts read: fetched from the first moment on, while the mount comes up. */
  readonly trace?: Trace | undefined;
  /** Whether to take note of what is read. */
  readonly takeNotes: boolean;
  /** Without a trace: bring all of the image from the first moment on, beside what is read. */
  readonly bringAll: boolean;
  /** The mount's own folder, and where its tree appears. */
  readonly dir: string;
  readonly root: string;
  /** Ignore setuid bits and device nodes. */
  readonly restrict: boolean;
}

export interface ImageMountParts {
  readonly cache: LayerCache;
  readonly transport: Transport;
  readonly limits: FetchLimits;
  readonly budget: BackgroundBudget;
  /** Keeps the connections of served mounts for a later process; absent: they end with this one. */
  readonly holder?: MountHolder | undefined;
}

/** A served mount whose process has ended and whose connection the holder has. */
export interface OrphanedMount {
  readonly dir: string;
  readonly record: MountRecord;
  /** Of the FUSE mount's device. */
  readonly connectionMinor: number;
  /** How EROFS reads its files. */
  readonly transport: TransportName;
}

/** One image, mounted: its layers in the cache, the fetching of what they lack, the mounts themselves. */
export class ImageMount implements MountedImage {
  readonly root: string;
  readonly workspace: string;
  readonly manifestDigest: string;
  readonly failure: Promise<MountError>;
  readonly #parts: ImageMountParts;
  readonly #dir: string;
  readonly #layers: readonly CachedLayer[];
  readonly #fetches: readonly LayerFetch[];
  readonly #fetcher: Fetcher;
  readonly #ahead: FetchAhead;
  readonly #endRoutes: () => void;
  #mount: LayeredMount | undefined;
  #awaited: AwaitedSource | undefined;
  #notes: StartNotes | undefined;
  /** Set when the layers are given up. */
  #lastStats: MountStats | undefined;

  private constructor(parts: ImageMountParts, request: ImageMountRequest, layers: readonly CachedLayer[]) {
    const { limits, budget } = parts;
    const failure = Promise.withResolvers<MountError>();
    this.#parts = parts;
    this.#dir = request.dir;
    this.root = request.root;
    this.workspace = request.workspace;
    this.manifestDigest = request.image.index.manifestDigest;
    this.failure = failure.promise;
    this.#layers = layers;
    this.#fetches = layers.map(({ blob, layer }) => {
      const descriptor = { mediaType: layer.mediaType, digest: layer.digest, size: layer.sizeBytes };
      return new LayerFetch(blob, descriptor, limits);
    });
    this.#fetcher = new Fetcher({
      engine: Engine.get(),
      source: request.source,
      limits,
      budget,
      onFailure: (error) => {
        logger("mount").warning("a read failed", { root: this.root, code: error.code, error: error.message });
        failure.resolve(error);
      },
      onKept: (bytes) => parts.cache.room.grew(bytes),
    });
    this.#ahead = new FetchAhead({
      fetcher: this.#fetcher,
      layers: this.#fetches,
      limits,
      budget,
      mayKeepMore: () => parts.cache.room.hasRoom(),
    });
    this.#endRoutes = routeMisses(this.#fetcher, this.#fetches);
  }

  /** Mounts, or leaves nothing behind. @throws MountError */
  static async open(
    parts: ImageMountParts,
    request: ImageMountRequest,
    signal: AbortSignal,
  ): Promise<ImageMount> {
    const layers: CachedLayer[] = [];
    let mount: ImageMount | undefined;
    try {
      for (const layer of request.image.layers) {
        signal.throwIfAborted();
        layers.push(await parts.cache.use(layer, layer.spanPath));
      }
      await verifyDevices(request.image, layers);
      mount = new ImageMount(parts, request, layers);
      if (request.trace !== undefined) mount.prefetch(request.trace);
      else if (request.bringAll) mount.#ahead.bringAll();
      if (request.eager) await mount.complete(request.onProgress, signal);
      await mount.#mountTree(request, signal);
      return mount;
    } catch (thrown) {
      const doing = `mounting image ${request.image.index.manifestDigest}`;
      const error = signal.aborted
        ? new MountError("cancelled", `${doing} was cancelled`, { cause: thrown })
        : toMountError(thrown, doing);
      await ImageMount.#giveUp(mount, layers, error);
      await removeMountDir(request.dir, request.root).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Goes on serving what an earlier process served: reads of what is in the cache are answered when this resolves, others
   * wait for {@link replaceSource}. `undefined`, with everything as it was, when the connection is over.
   * @throws MountError when the layers cannot be served as they were
   */
  static async adopt(
    parts: ImageMountParts,
    { dir, record, connectionMinor, transport }: OrphanedMount,
    image: OpenedImageIndex,
  ): Promise<ImageMount | undefined> {
    const { holder } = parts;
    if (record.served === undefined || holder === undefined) return undefined;
    const { workspace, root, files, served } = record;
    const layers: CachedLayer[] = [];
    let mount: ImageMount | undefined;
    try {
      for (const [at, layer] of image.layers.entries())
        layers.push(await parts.cache.useAgain(layer, layer.spanPath, files[at] ?? ""));
      await verifyDevices(image, layers);
      const source = new AwaitedSource();
      mount = new ImageMount(
        parts,
        {
          workspace,
          image,
          source,
          eager: false,
          takeNotes: false,
          bringAll: false,
          dir,
          root,
          restrict: false,
        },
        layers,
      );
      const partial = served.layers.flatMap((at) => layers[at] ?? []);
      mount.#mount = await LayeredMount.adopt({
        dir,
        root,
        partial,
        holder,
        connectionMinor,
        transport,
        readDeadlineMs: parts.limits.deadlineMs + deadlineGraceMs,
      });
      if (mount.#mount !== undefined) {
        mount.#awaited = source;
        mount.#closeComplete(partial);
        logger("mount").info("took over a mount of an earlier process", { workspace, root });
        return mount;
      }
    } catch (thrown) {
      const error = toMountError(thrown, `taking over the mount of image ${record.manifestDigest}`);
      await ImageMount.#giveUp(mount, layers, error);
      throw error;
    }
    await ImageMount.#giveUp(mount, layers, released(root));
    return undefined;
  }

  /** Ends what an attempt that led to no mount began. */
  static async #giveUp(
    mount: ImageMount | undefined,
    layers: readonly CachedLayer[],
    reason: MountError,
  ): Promise<void> {
    if (mount !== undefined) await mount.#endFetching(reason);
    for (const layer of layers) await layer.release();
  }

  get transport(): string {
    return this.#mount?.transport ?? "none";
  }

  get servedByProcess(): boolean {
    return this.#mount?.server !== undefined;
  }

  stats(): MountStats {
    return this.#lastStats ?? this.#currentStats();
  }

  #currentStats(): MountStats {
    const sum = (of: (fetch: LayerFetch) => number) =>
      this.#fetches.reduce((total, fetch) => total + of(fetch), 0);
    const spansTotal = sum((fetch) => fetch.spanCount);
    const spansPresent = sum((fetch) => fetch.presentCount);
    return {
      ...this.#fetcher.stats(),
      spansPresent,
      spansTotal,
      compressedBytes: sum(({ descriptor }) => descriptor.size),
      complete: this.#fetches.every((fetch) => fetch.complete),
    };
  }

  replaceSource(source: BlobSource, before?: BlobSource): void {
    this.#awaited?.provide(source);
    this.#fetcher.replaceSource(source, before ?? this.#awaited);
    this.#awaited = undefined;
  }

  leadSource(source: BlobSource): void {
    this.#fetcher.leadSource(source);
  }

  withdrawSource(source: BlobSource): void {
    this.#fetcher.withdrawSource(source);
  }

  async complete(onProgress: ((stats: MountStats) => void) | undefined, signal: AbortSignal): Promise<void> {
    await this.#ahead.all(() => onProgress?.(this.stats()), signal);
  }

  prefetch(trace: Trace): void {
    this.#ahead.replay(trace);
  }

  readSoFar(): StartTrace | undefined {
    return this.#notes?.readSoFar();
  }

  endNotes(): void {
    this.#notes?.end();
  }

  startBackground(): void {
    this.#ahead.background();
  }

  async close(): Promise<void> {
    await this.#ahead.stop();
    await this.#mount?.unmountTree();
    await this.#dismantle();
  }

  async detach(): Promise<void> {
    if (!this.servedByProcess) return;
    const ended = Promise.all([this.#ahead.stop(), this.#fetcher.close(released(this.root))]);
    await this.#mount?.detachTree();
    await ended;
    await this.#dismantle();
  }

  async #dismantle(): Promise<void> {
    await this.#endFetching(released(this.root));
    await this.#mount?.dismantle();
    this.#lastStats = this.#currentStats();
    for (const layer of this.#layers) await layer.release();
    await removeMountDir(this.#dir, this.root);
    void this.#parts.cache.room.evict();
  }

  async #endFetching(reason: MountError): Promise<void> {
    await Promise.all([this.#ahead.stop(), this.#fetcher.close(reason)]);
    this.#endRoutes();
  }

  /** EROFS reads the layers that are complete itself: nothing is fetched or written there any more. */
  #closeComplete(partial: readonly CachedLayer[]): void {
    for (const [index, layer] of this.#layers.entries()) {
      if (partial.includes(layer)) continue;
      this.#fetches[index]?.close();
      // Not waited for: it ends when the bytes are durable, which may take the disk seconds. `release` waits.
      layer.close().catch(() => undefined);
    }
  }

  async #mountTree(request: ImageMountRequest, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    const { watches } = this.#parts.cache;
    const partial = this.#layers.filter(({ blob }) => watches || !blob.complete);
    if (request.takeNotes) this.#notes = new StartNotes(partial);
    const stats = this.stats();
    const record = {
      version: 2 as const,
      workspace: this.workspace,
      manifestDigest: this.manifestDigest,
      root: this.root,
      files: this.#layers.map(({ path }) => path),
      spansTotal: stats.spansTotal,
      compressedBytes: stats.compressedBytes,
    };
    const served = {
      indexSha256: request.image.sha256,
      layers: partial.map((layer) => this.#layers.indexOf(layer)),
    };
    await writeRecord(this.#dir, partial.length === 0 ? record : { ...record, served });
    const mount = await LayeredMount.create({
      dir: this.#dir,
      holder: this.#parts.holder,
      root: this.root,
      erofsPath: request.image.erofsPath,
      layers: this.#layers,
      partial,
      transport: this.#parts.transport,
      restrict: request.restrict,
      readDeadlineMs: this.#parts.limits.deadlineMs + deadlineGraceMs,
      signal,
    });
    this.#mount = mount;
    const { server } = mount;
    if (server !== undefined) this.#parts.budget.mounted(() => server.stats().reads);
    this.#closeComplete(partial);
    logger("mount").info("image mounted", {
      workspace: this.workspace,
      manifest: this.manifestDigest,
      root: this.root,
      transport: mount.transport,
      layers: this.#layers.length,
      served: mount.server !== undefined,
      fuseMs: Math.round(mount.fuseMs),
      erofsMs: Math.round(mount.erofsMs),
      totalMs: Math.round(performance.now() - started),
    });
  }
}
