import { join } from "node:path";
import type { OpenedImageIndex } from "../index/store.ts";
import type { StartTrace, Trace, TracedRange } from "../index/trace.ts";
import type { Span } from "../native/blob.ts";
import { Engine } from "../native/engine.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { logger } from "../std/log.ts";
import type { BackgroundBudget } from "./background-budget.ts";
import { Completion } from "./completion.ts";
import { toMountError } from "./errno.ts";
import { MountError } from "./error.ts";
import { released } from "./failure.ts";
import { Fetcher } from "./fetcher.ts";
import type { CachedLayer, LayerCache } from "./layer-cache.ts";
import { LayerFetch } from "./layer-fetch.ts";
import { LayeredMount } from "./layered-mount.ts";
import { deadlineGraceMs, type FetchLimits } from "./limits.ts";
import { routeMisses } from "./miss-routes.ts";
import { removeMountDir, writeRecord } from "./mount-record.ts";
import type { MountedImage, MountStats } from "./mounted-image.ts";
import { TraceReplay } from "./trace-replay.ts";
import type { Transport } from "./transport.ts";
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
  readonly #completion: Completion;
  readonly #endRoutes: () => void;
  /** Ends what is fetched ahead and in the background. */
  readonly #leaving = new AbortController();
  #mount: LayeredMount | undefined;
  /** The layers whose reads are noted. */
  #noted: readonly CachedLayer[] | undefined;
  #replaying: Promise<unknown> = Promise.resolve();
  /** Set when the layers are given up. */
  #lastStats: MountStats | undefined;
  #background: { readonly stop: AbortController; readonly ended: Promise<void> } | undefined;

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
      onKept: (bytes) => parts.cache.grew(bytes),
    });
    this.#completion = new Completion(this.#fetcher, this.#fetches, limits, budget);
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
      if (request.eager) await mount.complete(request.onProgress, signal);
      await mount.#mountTree(request, signal);
      return mount;
    } catch (thrown) {
      const doing = `mounting image ${request.image.index.manifestDigest}`;
      const error = signal.aborted
        ? new MountError("cancelled", `${doing} was cancelled`, { cause: thrown })
        : toMountError(thrown, doing);
      if (mount !== undefined) await mount.#endFetching(error);
      for (const layer of layers) await layer.release();
      await removeMountDir(request.dir, request.root).catch(() => undefined);
      throw error;
    }
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
      complete: spansPresent === spansTotal,
    };
  }

  replaceSource(source: BlobSource): void {
    this.#fetcher.replaceSource(source);
  }

  async complete(onProgress: ((stats: MountStats) => void) | undefined, signal: AbortSignal): Promise<void> {
    await this.#completion.fetchAll(() => onProgress?.(this.stats()), signal);
  }

  prefetch(trace: Trace): void {
    const replay = new TraceReplay(this.#fetcher, this.#fetches, trace, this.#parts.limits);
    this.#replaying = Promise.all([this.#replaying, replay.run(this.#leaving.signal)]);
  }

  readSoFar(): StartTrace | undefined {
    if (this.#noted === undefined) return undefined;
    const reads = this.#noted.flatMap(({ blob, layer }) => {
      if (blob.released) return [];
      const orders = [...blob.touches().entries()].filter(([, order]) => order > 0);
      return orders.map(([span, order]) => ({ order, range: rangeOf(layer.digest, blob.span(span)) }));
    });
    const seenLayers = this.#noted.map(({ layer }) => layer.digest);
    return { ranges: reads.sort((a, b) => a.order - b.order).map(({ range }) => range), seenLayers };
  }

  endNotes(): void {
    for (const { blob } of this.#noted ?? []) blob.endTouches();
  }

  startBackground(): void {
    if (this.#background !== undefined || this.stats().complete) return;
    const stop = new AbortController();
    const ended = this.#replaying.then(() =>
      this.#completion.fetchQuietly(() => this.#parts.cache.hasRoom(), stop.signal),
    );
    this.#background = { stop, ended };
  }

  async close(): Promise<void> {
    this.#leaving.abort();
    this.#background?.stop.abort();
    await this.#background?.ended;
    this.#background = undefined;
    await this.#mount?.unmountTree();
    await this.#dismantle();
  }

  async detach(): Promise<void> {
    if (!this.servedByProcess) return;
    this.#leaving.abort();
    this.#background?.stop.abort();
    const answered = this.#fetcher.close(released(this.root));
    await this.#mount?.detachTree();
    await answered;
    await this.#dismantle();
  }

  async #dismantle(): Promise<void> {
    await this.#endFetching(released(this.root));
    await this.#mount?.dismantle();
    this.#lastStats = this.#currentStats();
    for (const layer of this.#layers) await layer.release();
    await removeMountDir(this.#dir, this.root);
    void this.#parts.cache.evict();
  }

  async #endFetching(reason: MountError): Promise<void> {
    this.#leaving.abort();
    this.#background?.stop.abort();
    await this.#fetcher.close(reason);
    await this.#replaying;
    await this.#background?.ended;
    this.#endRoutes();
  }

  async #mountTree(request: ImageMountRequest, signal: AbortSignal): Promise<void> {
    const started = performance.now();
    const partial = this.#layers.filter(({ blob }) => !blob.complete);
    if (request.takeNotes) {
      for (const { blob } of partial) blob.beginTouches();
      this.#noted = partial;
    }
    const stats = this.stats();
    await writeRecord(this.#dir, {
      version: 1,
      workspace: this.workspace,
      manifestDigest: this.manifestDigest,
      root: this.root,
      served: partial.length > 0,
      files: this.#layers.map(({ path }) => path),
      spansTotal: stats.spansTotal,
      compressedBytes: stats.compressedBytes,
    });
    const mount = await LayeredMount.create({
      blobs: join(this.#dir, "blobs"),
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
    for (const [index, layer] of this.#layers.entries()) {
      if (partial.includes(layer)) continue;
      this.#fetches[index]?.close();
      // Not waited for: it ends when the bytes are durable, which may take the disk seconds. `release` waits.
      layer.close().catch(() => undefined);
    }
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

function rangeOf(layer: string, span: Span): TracedRange {
  const { tarOffset, tarLength, compLength } = span;
  return { layer, tarOffset, tarLength, compressedBytes: compLength };
}
