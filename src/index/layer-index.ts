import { rm } from "node:fs/promises";
import type { ChunkTable } from "./chunk-table.ts";
import { ChunkTableIndexing } from "./chunk-table-index.ts";
import { IndexError } from "./error.ts";
import { type BlobPlace, LayerBlobWriter } from "./layer-blob.ts";
import { detectCompression, magicBytes } from "./layer-compression.ts";
import { type ExtentSink, LayerEntries } from "./layer-entries.ts";
import type { LayerScan, ScanSinks } from "./layer-scan.ts";
import { GzipScan } from "./layer-scan-gzip.ts";
import { PlainScan } from "./layer-scan-plain.ts";
import { ZstdScan } from "./layer-scan-zstd.ts";
import { TocWriter } from "./layer-toc.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";
import { SpanFileWriter } from "./span-file.ts";
import { ExtentTable } from "./span-table.ts";
import { TarReader } from "./tar-reader.ts";
import { type IndexedLayer, spanFile } from "./types.ts";

/** The layer to index, as the manifest names it. */
export interface LayerToIndex {
  /** `sha256:…` of the compressed bytes. */
  readonly digest: string;
  /** Compressed bytes. */
  readonly size: number;
  readonly mediaType: string;
  /** The bytes are those of the table of contents that the layer brings, not the layer's. No blob comes of it then. */
  readonly chunkTable?: ChunkTable | undefined;
}

/** Where the results go. Existing files are replaced; after a failure there are none. */
export interface LayerIndexFiles {
  /** Span file (`types.ts`). */
  readonly spanPath: string;
  /** Table of contents (`layer-toc.ts`). */
  readonly tocPath: string;
  /** The aligned blob, when it is wanted too. After success it is there, unless there was no room for it. */
  readonly blob?: BlobPlace | undefined;
}

/**
 * Indexes a layer in one pass over its compressed bytes, in this process: digest, random access points, entries, places
 * of file data. Holds a few MiB, whatever the layer's size. It keeps the thread busy: servers use `indexLayerInChild`.
 *
 * @throws {IndexError} `digest_mismatch` when the bytes are not the layer's (also when they make no sense), `bad_layer`,
 *   `bad_tar`, `unsupported_compression`, `limit_exceeded`, `no_space`, `cancelled`; and what `bytes` throws
 */
export async function indexLayerStream(
  layer: LayerToIndex,
  bytes: AsyncIterable<Uint8Array>,
  out: LayerIndexFiles,
  limits: IndexLimits,
  signal: AbortSignal,
): Promise<IndexedLayer> {
  let indexing: LayerIndexing | ChunkTableIndexing | undefined;
  try {
    indexing = openIndexing(layer, out, limits);
    await forEachChunk(bytes, signal, (chunk) => indexing?.push(chunk));
    return indexing.finish();
  } catch (error) {
    indexing?.close();
    await Promise.all([rm(out.spanPath, { force: true }), rm(out.tocPath, { force: true })]);
    throw error;
  }
}

/** The pass that fits the layer. */
export function openIndexing(
  layer: LayerToIndex,
  out: LayerIndexFiles,
  limits: IndexLimits,
): LayerIndexing | ChunkTableIndexing {
  return layer.chunkTable === undefined
    ? LayerIndexing.create(layer, out, limits)
    : ChunkTableIndexing.create(layer, layer.chunkTable, out, limits);
}

/** The pass over one layer: bytes are pushed in, the files come out. */
export class LayerIndexing {
  readonly #layer: LayerToIndex;
  readonly #limits: IndexLimits;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  readonly #toc: TocWriter;
  readonly #spanFile: SpanFileWriter;
  readonly #extents: ExtentTable;
  readonly #blob: LayerBlobWriter | undefined;
  readonly #entries: LayerEntries;
  readonly #tar: TarReader;
  #received = 0;
  #tarBytes = 0;
  #head: Uint8Array | undefined = new Uint8Array(0);
  #scan: LayerScan | undefined;
  /** What is wrong with the layer, if its bytes turn out to be those that the manifest names. */
  #failure: IndexError | undefined;

  private constructor(
    layer: LayerToIndex,
    out: { toc: TocWriter; spanFile: SpanFileWriter; blob: LayerBlobWriter | undefined },
    limits: IndexLimits,
  ) {
    const { toc, spanFile, blob } = out;
    this.#layer = layer;
    this.#limits = limits;
    this.#toc = toc;
    this.#spanFile = spanFile;
    this.#extents = new ExtentTable(limits);
    this.#blob = blob;
    this.#entries = new LayerEntries(limits, both(this.#extents, blob), (entry) => {
      toc.add(entry);
      checkLimit(limits, "tocBytesMax", toc.sizeBytes, () => "the layer's table of contents");
    });
    this.#tar = new TarReader(limits, (member) => this.#entries.add(member));
  }

  static create(layer: LayerToIndex, out: LayerIndexFiles, limits: IndexLimits): LayerIndexing {
    if (!/^sha256:[0-9a-f]{64}$/.test(layer.digest)) {
      throw new IndexError(
        "bad_layer",
        `the layer's digest ${JSON.stringify(layer.digest)} is not a SHA-256`,
      );
    }
    const toc = TocWriter.create(out.tocPath);
    try {
      const spanFile = SpanFileWriter.create(out.spanPath);
      const blob = out.blob === undefined ? undefined : LayerBlobWriter.create(out.blob);
      return new LayerIndexing(layer, { toc, spanFile, blob }, limits);
    } catch (error) {
      toc.close();
      throw error;
    }
  }

  /** Why the blob that was wanted is not made. */
  get blobProblem(): string | undefined {
    return this.#blob?.problem;
  }

  /** Takes the next compressed bytes, of any number. */
  push(chunk: Uint8Array): void {
    this.#received += chunk.length;
    if (this.#received > this.#layer.size) {
      throw this.#mismatch(`has more than the ${this.#layer.size} bytes that its manifest says`);
    }
    this.#hasher.update(chunk);
    if (this.#failure !== undefined) return;
    try {
      this.#scanChunk(chunk);
    } catch (error) {
      // Broken bytes may be a broken transfer: the digest tells, so the rest is hashed before anyone is blamed.
      if (!(error instanceof IndexError) || (error.code !== "bad_tar" && error.code !== "bad_layer"))
        throw error;
      this.#failure = error;
    }
  }

  /** Says that all bytes were pushed; writes and closes the files. */
  finish(): IndexedLayer {
    if (this.#received < this.#layer.size) {
      throw this.#mismatch(
        `has ${this.#received} bytes and not the ${this.#layer.size} that its manifest says`,
      );
    }
    const digest = `sha256:${this.#hasher.digest("hex")}`;
    if (digest !== this.#layer.digest) throw this.#mismatch(`turned out to be ${digest}`);
    if (this.#failure !== undefined) throw this.#failure;
    const scan = this.#scan ?? this.#begin(this.#head ?? new Uint8Array(0));
    const { kind, spans } = scan.finish();
    this.#tar.finish();
    scan.close();
    this.#toc.finish();
    const written = this.#spanFile.finish(
      {
        kind,
        digest,
        compressedBytes: this.#layer.size,
        tarBytes: this.#tarBytes,
        blobBytes: this.#entries.blobBytes,
      },
      spans,
      this.#extents,
    );
    this.#blob?.finish(this.#entries.blobBytes);
    return {
      digest,
      mediaType: this.#layer.mediaType,
      sizeBytes: this.#layer.size,
      tarSizeBytes: this.#tarBytes,
      blobSizeBytes: this.#entries.blobBytes,
      entries: this.#toc.entries,
      spanSha256: written.sha256,
      spanSizeBytes: written.sizeBytes,
    };
  }

  /** Closes what is open; the files are then unusable unless `finish` returned. */
  close(): void {
    this.#scan?.close();
    this.#toc.close();
    this.#spanFile.close();
    this.#blob?.close();
  }

  #scanChunk(chunk: Uint8Array): void {
    if (this.#scan !== undefined) {
      this.#scan.push(chunk);
      return;
    }
    this.#head = Buffer.concat([this.#head ?? new Uint8Array(0), chunk]);
    if (this.#head.length >= magicBytes) this.#begin(this.#head);
  }

  #begin(head: Uint8Array): LayerScan {
    const sinks: ScanSinks = {
      tar: (bytes) => {
        const tarOffset = this.#tarBytes;
        this.#tarBytes += bytes.length;
        this.#tar.push(bytes);
        this.#blob?.write(tarOffset, bytes);
      },
      window: (stored) => this.#spanFile.addWindow(stored),
      storedBytes: () => this.#spanFile.windowsBytes + this.#extents.count * spanFile.packedExtentBytes,
    };
    const compression = detectCompression(this.#layer.mediaType, head);
    const scan =
      compression === "gzip"
        ? new GzipScan(sinks, this.#limits)
        : compression === "zstd"
          ? new ZstdScan(this.#layer.size, sinks, this.#limits)
          : new PlainScan(sinks, this.#limits);
    this.#scan = scan;
    this.#head = undefined;
    if (head.length > 0) scan.push(head);
    return scan;
  }

  #mismatch(what: string): IndexError {
    return new IndexError("digest_mismatch", `the layer ${this.#layer.digest} ${what}`, {
      next: "Try again; if it stays, the registry or something before it changes the layer.",
    });
  }
}

function both(table: ExtentSink, blob: ExtentSink | undefined): ExtentSink {
  if (blob === undefined) return table;
  return {
    addExtent(tarOffset, blobOffset, length) {
      table.addExtent(tarOffset, blobOffset, length);
      blob.addExtent(tarOffset, blobOffset, length);
    },
  };
}

/** Calls `take` with each chunk, until the end or until `signal` fires, even while source or `take` hang. */
export async function forEachChunk(
  bytes: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  take: (chunk: Uint8Array) => void | Promise<void>,
): Promise<void> {
  const iterator = bytes[Symbol.asyncIterator]();
  let interrupt = (): void => {};
  // Not Promise.race: it would hang a reaction on the signal's promise for every chunk of the layer.
  const interruptible = <T>(pending: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      interrupt = () => reject(cancelled(signal));
      pending.then(resolve, reject);
      if (signal.aborted) interrupt();
    });
  const onAbort = (): void => interrupt();
  signal.addEventListener("abort", onAbort);
  let done = false;
  try {
    for (;;) {
      const next = await interruptible(iterator.next());
      if (next.done === true) break;
      const taking = take(next.value);
      if (taking !== undefined) await interruptible(taking);
    }
    done = true;
  } finally {
    signal.removeEventListener("abort", onAbort);
    // Not awaited: a source that hangs would hang its own cleanup as well.
    if (!done) iterator.return?.().catch(() => {});
  }
}

export function cancelled(signal: AbortSignal): IndexError {
  return new IndexError("cancelled", "indexing the layer was cancelled", { cause: signal.reason });
}
