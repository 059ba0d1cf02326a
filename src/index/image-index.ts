import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { digestOf } from "../reference/digest.ts";
import { formatPlatform, normalizePlatform } from "../reference/platform.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { RegistryError } from "../registry/error.ts";
import type { ResolvedImage } from "../registry/repository.ts";
import { logger } from "../std/log.ts";
import { chunkTableDigest, findChunkTable } from "./chunk-table.ts";
import { IndexError, writeError } from "./error.ts";
import type { LayerIndexFiles, LayerToIndex } from "./layer-index.ts";
import type { LayerKeeper } from "./layer-keeper.ts";
import type { LayerProofs } from "./layer-proofs.ts";
import { checkLimit, defaultIndexLimits, type IndexLimits } from "./limits.ts";
import { type MergeImage, mergeImage } from "./merge-image.ts";
import { readSpanHeader } from "./span-file.ts";
import type { IndexStore, StoredLayer } from "./store.ts";
import { isOlder } from "./store-folder.ts";
import type { LayerName, LayerPaths } from "./store-layer.ts";
import type { ImageIndex, IndexedLayer } from "./types.ts";

const scratchPrefix = "build-";
const abandonedMs = 24 * 60 * 60 * 1000;
/** One more than there are processors: a layer that waits for the registry leaves its own to another. */
const concurrencyDefault = Math.min(8, Math.max(3, availableParallelism() + 1));

/** Reads a layer once and writes what is asked of it (`layer-index.ts`); in this process or, better, in a child. */
export type IndexLayer = (
  layer: LayerToIndex,
  bytes: AsyncIterable<Uint8Array>,
  out: LayerIndexFiles,
  signal: AbortSignal,
) => Promise<IndexedLayer>;

export interface LayerProgress {
  readonly digest: string;
  /** Compressed bytes read so far; all at once for a layer that the store has. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

export interface BuildImageIndexOptions {
  /** Canonical `registry/repository`. */
  readonly repository: string;
  readonly resolved: ResolvedImage;
  readonly source: BlobSource;
  readonly store: IndexStore;
  /** A folder for files in the making, best on the store's file system; each build makes one of its own in it. */
  readonly scratchDir: string;
  readonly indexLayer: IndexLayer;
  /** Bounds what is fetched of a layer before `indexLayer`. */
  readonly limits?: IndexLimits;
  /** Merges the layers. Default: in this process; servers pass `mergeImageInChild`. */
  readonly mergeImage?: MergeImage;
  /**
   * Who may have which layer without reading it. Default: what the store has is the caller's own, and believed; right for
   * one user with a store of his own.
   */
  readonly proofs?: LayerProofs | undefined;
  /** Takes the contents of the layers that are read. Default: they are not kept. */
  readonly keeper?: LayerKeeper | undefined;
  /** Layers indexed at the same time. Default: {@link concurrencyDefault}. */
  readonly concurrency?: number;
  readonly onProgress?: (progress: LayerProgress) => void;
  /** Sees the bytes of each layer that is read, in order, before they are indexed. They are verified only at the end. */
  readonly tee?: (layer: Descriptor, bytes: Uint8Array) => void;
  readonly signal: AbortSignal;
}

export interface BuiltImageIndex {
  readonly index: ImageIndex;
  /** SHA-256 (hex) of the index's text: what the image's row and each request for it hold. */
  readonly sha256: string;
}

/**
 * Indexes the layers that the store does not have, merges all of them, and puts the image into the store. On failure
 * nothing is left behind but layers that were finished: the next build finds them.
 *
 * @throws IndexError; what the source throws (RegistryError); `cancelled` when the signal fired
 */
export async function buildImageIndex(options: BuildImageIndexOptions): Promise<BuiltImageIndex> {
  const { resolved, signal } = options;
  if (digestOf(resolved.configBytes) !== resolved.config.digest) {
    throw new IndexError(
      "digest_mismatch",
      `the image config is not the one with the digest ${resolved.config.digest}`,
    );
  }
  let scratch: string | undefined;
  try {
    signal.throwIfAborted();
    await mkdir(options.scratchDir, { recursive: true });
    await removeAbandoned(options.scratchDir);
    scratch = await mkdtemp(join(options.scratchDir, scratchPrefix));
    const layers = await indexLayers(options, scratch);
    return await putImage(options, layers, scratch);
  } catch (error) {
    if (!signal.aborted) throw writeError(options.scratchDir, error);
    throw new IndexError(
      "cancelled",
      `the index of ${options.repository} was not finished: the build was cancelled`,
      {
        cause: error,
      },
    );
  } finally {
    if (scratch !== undefined) await rm(scratch, { recursive: true, force: true });
  }
}

/** Removes what builds left that were killed: no build takes as long. */
async function removeAbandoned(scratchDir: string): Promise<void> {
  for (const name of await readdir(scratchDir)) {
    if (!name.startsWith(scratchPrefix)) continue;
    const path = join(scratchDir, name);
    if (!(await isOlder(path, abandonedMs))) continue;
    await rm(path, { recursive: true, force: true });
  }
}

/**
 * Indexes each distinct layer once, some at a time and the largest first, so that none of them is left for last; the first
 * failure stops the others. Gives the layers in the manifest's order.
 */
async function indexLayers(options: BuildImageIndexOptions, scratch: string): Promise<StoredLayer[]> {
  const { layers } = options.resolved;
  const distinct = new Map(layers.map((layer) => [layer.digest, layer]));
  const todo = [...distinct.values()].sort((a, b) => b.size - a.size);
  const done = new Map<string, StoredLayer>();
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const work = async () => {
    for (let layer = todo.shift(); layer !== undefined; layer = todo.shift()) {
      signal.throwIfAborted();
      done.set(layer.digest, await indexOneLayer(options, layer, scratch, signal));
    }
  };
  const workers = Array.from({ length: Math.max(1, options.concurrency ?? concurrencyDefault) }, async () => {
    try {
      await work();
    } catch (error) {
      failed.abort(error);
    }
  });
  await Promise.all(workers);
  signal.throwIfAborted();
  return layers.flatMap(({ digest }) => done.get(digest) ?? []);
}

async function indexOneLayer(
  options: BuildImageIndexOptions,
  layer: Descriptor,
  scratch: string,
  signal: AbortSignal,
): Promise<StoredLayer> {
  const { digest, size } = layer;
  const folder = join(scratch, digest.slice("sha256:".length));
  await mkdir(folder);
  const out = { spanPath: join(folder, "spans"), tocPath: join(folder, "toc") };
  try {
    const stored =
      (await reusable(options, layer, signal)) ?? (await indexByChunkTable(options, layer, out, signal));
    if (stored === undefined) return await readWhole(options, layer, out, signal);
    options.onProgress?.({ digest, bytesDone: size, bytesTotal: size });
    return stored;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The store's index of a layer, where it may stand for the layer's bytes: when it is the one that was made from them, they
 * came from this very registry, and the registry says that the repository has the layer. Else they are read, which proves
 * the same: who has all of them learns nothing from an index.
 */
async function reusable(
  { store, proofs }: BuildImageIndexOptions,
  layer: Descriptor,
  signal: AbortSignal,
): Promise<StoredLayer | undefined> {
  const { digest } = layer;
  const stored = await store.layer({ digest });
  if (proofs === undefined || stored === undefined) return stored;
  const remembered = await proofs.recall(digest);
  const { factsSha256, cameFromHere = false } = remembered ?? {};
  if (factsSha256 !== stored.factsSha256) {
    if (factsSha256 !== undefined)
      logger("index").warning("a layer's index is not the one that was written: it is made again", {
        layer: digest,
      });
    return undefined;
  }
  return cameFromHere && (await proofs.repositoryHas(layer, signal)) ? stored : undefined;
}

/** Takes a layer's fresh index in. What stands in the store stays only where it is known to be sound. */
async function commit(
  { store, proofs }: BuildImageIndexOptions,
  name: LayerName,
  out: LayerPaths,
): Promise<StoredLayer> {
  if (proofs === undefined) return await store.commitLayer(name, out);
  const sound = name.tocDigest === undefined ? await proofs.recall(name.digest) : undefined;
  return await store.commitLayer(name, out, ({ factsSha256 }) => factsSha256 === sound?.factsSha256);
}

/** Indexes a layer in one pass over its bytes, which gives its contents to whoever keeps them. */
async function readWhole(
  options: BuildImageIndexOptions,
  layer: Descriptor,
  out: LayerPaths,
  signal: AbortSignal,
): Promise<StoredLayer> {
  const { keeper, proofs } = options;
  const { digest } = layer;
  const place = await keeper?.place(layer);
  try {
    const bytes = watched(options, layer, signal);
    const indexed = await options.indexLayer(layer, bytes, { ...out, blob: place }, signal);
    const stored = await commit(options, { digest }, out);
    await proofs?.remember(stored, layer.mediaType);
    // An index of the layer that another made meanwhile stays; when it cuts the layer differently, ours fits nothing.
    const fits = stored.spanSha256 === indexed.spanSha256;
    if (place !== undefined && fits) await keeper?.keep(indexed, stored.spanPath, place);
    return stored;
  } finally {
    if (place !== undefined) await rm(place.path, { force: true });
  }
}

/**
 * The layer's index from the table of contents that it brings, when its manifest names one. `undefined`: there is none
 * that can be used, and the layer is to be read as what it is without one.
 */
async function indexByChunkTable(
  options: BuildImageIndexOptions,
  layer: Descriptor,
  out: LayerPaths,
  signal: AbortSignal,
): Promise<StoredLayer | undefined> {
  const { store, source, limits, proofs } = options;
  const { digest } = layer;
  const tocDigest = chunkTableDigest(layer);
  if (tocDigest === undefined) return undefined;
  if (proofs === undefined) {
    const present = await store.layer({ digest, tocDigest });
    if (present !== undefined) return present;
    // Little is read of it: whether all of it can be had is asked.
  } else if (!(await proofs.repositoryHas(layer, signal))) return undefined;
  try {
    const { table, bytes } = await findChunkTable(layer, source, limits ?? defaultIndexLimits, signal);
    await options.indexLayer({ ...layer, chunkTable: table }, bytes, out, signal);
  } catch (error) {
    const isOurs = error instanceof IndexError && error.code !== "cancelled" && error.code !== "no_space";
    const noRanges = error instanceof RegistryError && error.code === "range_unsupported";
    if (signal.aborted || !(isOurs || noRanges)) throw error;
    logger("index").warning("a layer's own table of contents is not used; the layer is read as a whole", {
      layer: digest,
      reason: error.message,
    });
    return undefined;
  }
  return await commit(options, { digest, tocDigest }, out);
}

async function* watched(
  options: BuildImageIndexOptions,
  layer: Descriptor,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  let bytesDone = 0;
  for await (const chunk of options.source.stream(layer, 0, signal)) {
    bytesDone += chunk.length;
    options.tee?.(layer, chunk);
    yield chunk;
    options.onProgress?.({ digest: layer.digest, bytesDone, bytesTotal: layer.size });
  }
}

const tableBytes = { extent: 24, span: 144 };

/** @throws IndexError `limit_exceeded` when the layers' tables would take more of a worker's memory than they may */
function checkTables(layers: readonly StoredLayer[], limits: IndexLimits): void {
  let bytes = 0;
  for (const path of new Set(layers.map(({ spanPath }) => spanPath))) {
    const { extentCount, spanCount } = readSpanHeader(path);
    bytes += extentCount * tableBytes.extent + spanCount * tableBytes.span;
  }
  checkLimit(limits, "imageTableBytesMax", bytes, () => "the tables of the layers");
}

async function putImage(
  options: BuildImageIndexOptions,
  layers: readonly StoredLayer[],
  scratch: string,
): Promise<BuiltImageIndex> {
  const { resolved, signal } = options;
  const { os, architecture, variant } = resolved.imageConfig;
  checkTables(layers, options.limits ?? defaultIndexLimits);
  const erofsPath = join(scratch, "erofs");
  const erofs = await (options.mergeImage ?? mergeImage)({ layers, erofsPath }, signal);
  if (erofs.droppedXattrs.length > 0) {
    logger("index").info("left out extended attributes that are not shown", { names: erofs.droppedXattrs });
  }
  const index: ImageIndex = {
    version: 1,
    repository: options.repository,
    manifestDigest: resolved.manifest.digest,
    configDigest: resolved.config.digest,
    platform: formatPlatform(normalizePlatform({ os, architecture, ...(variant === "" ? {} : { variant }) })),
    imageConfig: Buffer.from(resolved.configBytes).toString("utf8"),
    erofsSha256: erofs.sha256,
    erofsSizeBytes: erofs.sizeBytes,
    inodes: erofs.inodes,
    layers: layers.map((layer, at) => ({
      digest: layer.digest,
      mediaType: resolved.layers[at]?.mediaType ?? "",
      sizeBytes: layer.sizeBytes,
      tarSizeBytes: layer.tarSizeBytes,
      blobSizeBytes: layer.blobSizeBytes,
      entries: layer.entries,
      spanSha256: layer.spanSha256,
      spanSizeBytes: layer.spanSizeBytes,
      ...(layer.tocDigest === undefined
        ? {}
        : { tocDigest: layer.tocDigest, registry: options.repository.replace(/\/.*$/, "") }),
    })),
  };
  return { index, ...(await options.store.putImage(index, erofsPath)) };
}
