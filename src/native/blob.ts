/**
 * One layer's aligned blob on this host: a sparse cache file, a bitmap of the spans that are in it, and the span file
 * that says how to get the rest. Blobs of one cache path are shared inside the process; each `LayerBlob` is a user of
 * its own, and a miss is reported to the user whose mount it came from.
 */
import { checked, errnoName, runJob } from "./doorbell.ts";
import { NativeError } from "./error.ts";
import { cText, loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_blob_open: { args: ["buffer", "buffer", "buffer", "bool", "buffer"], returns: "i32" },
  oci_blob_import: { args: ["buffer", "buffer", "buffer", "buffer", "buffer", "u32"], returns: "i32" },
  oci_blob_release: { args: ["u32", "u32"], returns: "i32" },
  oci_blob_info: { args: ["u32", "buffer"], returns: "i32" },
  oci_blob_spans: { args: ["u32", "buffer", "u32"], returns: "i32" },
  oci_blob_is_present: { args: ["u32", "u32"], returns: "i32" },
  oci_blob_present_count: { args: ["u32"], returns: "i64" },
  oci_blob_is_complete: { args: ["u32"], returns: "i32" },
  oci_blob_prove: { args: ["u32", "u32"], returns: "i32" },
  oci_blob_next_missing: { args: ["u32", "u32"], returns: "i64" },
  oci_touches_begin: { args: ["u32"], returns: "i32" },
  oci_touches: { args: ["u32", "buffer", "u32"], returns: "i32" },
  oci_touches_end: { args: ["u32"], returns: "void" },
  oci_blob_spans_of: { args: ["u32", "u64", "u64", "buffer"], returns: "i32" },
});

const errorTextBytes = 512;
const fieldsPerSpan = 5;

/** How a layer's spans are packed; the numbers of the span file. */
export const spanKinds = {
  plain: 0,
  gzip: 1,
  zstdFrames: 2,
  zstdStream: 3,
  gzipChunks: 4,
  zstdChunks: 5,
} as const;
export type SpanKind = (typeof spanKinds)[keyof typeof spanKinds];

/** Where a span's bytes are: in the compressed layer, in the tar stream, in the blob. All in bytes. */
export interface Span {
  readonly compOffset: number;
  readonly compLength: number;
  readonly tarOffset: number;
  readonly tarLength: number;
  readonly blobOffset: number;
}

export interface LayerBlobPaths {
  /** The layer's span file; checked whole when opened, and never changed afterwards. */
  readonly spanPath: string;
  /** Created, sparse and of the blob's size, when it is not there. */
  readonly cachePath: string;
  readonly mapPath: string;
}

export interface LayerBlobOptions extends LayerBlobPaths {
  /**
   * What of the cache file is believed without having been read: with `stamp`, the default, what was closed cleanly and
   * has not changed since by its times; with `all` nothing.
   */
  readonly verify?: "stamp" | "all";
}

export interface BlobImportPaths extends LayerBlobPaths {
  /** A whole aligned blob of the size that the span file names, on the file system of the cache; it moves away. */
  readonly sourcePath: string;
}

/** Every living `LayerBlob` by its number in C, for the delivery of misses. */
const living = new Map<number, LayerBlob>();

/** The blob of a number, unless it was released. */
export function livingBlob(id: number): LayerBlob | undefined {
  return living.get(id);
}

export class LayerBlob {
  readonly cachePath: string;
  readonly sizeBytes: number;
  readonly spanCount: number;
  readonly kind: SpanKind;
  readonly compressedBytes: number;
  readonly tarSizeBytes: number;
  /** `sha256:…` of the compressed layer, as the span file names it. */
  readonly layerDigest: string;
  readonly #id: number;
  #spans: Float64Array | undefined;
  #released: Promise<void> | undefined;

  private constructor(id: number, cachePath: string) {
    const info = Buffer.alloc(64);
    checked(symbols.oci_blob_info(id, info), "blob info");
    this.#id = id;
    this.cachePath = cachePath;
    this.sizeBytes = Number(info.readBigUInt64LE(0));
    this.compressedBytes = Number(info.readBigUInt64LE(8));
    this.tarSizeBytes = Number(info.readBigUInt64LE(16));
    this.spanCount = info.readUInt32LE(24);
    this.kind = info.readUInt32LE(28) as SpanKind;
    this.layerDigest = `sha256:${info.toString("hex", 32, 64)}`;
  }

  /**
   * Opens (or shares) a blob. Throws {@link NativeError}: `BAD_SPAN_FILE` for a span file that is not whole and
   * consistent, `EBUSY` when another process serves this cache file, else the errno of the file that failed.
   * A map of another span file or cache file is discarded with the data. What is there but cannot be believed (a crash, a
   * file that somebody touched) is proved before it is served: span by span as readers come, or by {@link prove}.
   */
  static open(paths: LayerBlobOptions): LayerBlob {
    const error = Buffer.alloc(errorTextBytes);
    const id = symbols.oci_blob_open(
      cText(paths.spanPath),
      cText(paths.cachePath),
      cText(paths.mapPath),
      paths.verify === "all",
      error,
    );
    if (id < 0) throw openError(id, paths, error);
    const blob = new LayerBlob(id, paths.cachePath);
    living.set(id, blob);
    return blob;
  }

  /**
   * Makes a whole blob, which the caller has verified, the cache file of a layer. Resolves when whoever opens it finds
   * it complete; it is made durable after that. A crash before leaves nothing that is believed. Throws
   * {@link NativeError}: `EBUSY` when somebody serves this cache path, `EINVAL` when the source is not a file of the
   * blob's size, `EILSEQ` when it has bytes where no file of the layer has any, `EXDEV` when it is on another file system, `ENOSPC` when there is no room for the map; the source is
   * then where it was.
   */
  static async import(paths: BlobImportPaths): Promise<void> {
    const error = Buffer.alloc(errorTextBytes);
    const texts = [paths.spanPath, paths.sourcePath, paths.cachePath, paths.mapPath].map(cText);
    const [span, source, cache, map] = texts as [Buffer, Buffer, Buffer, Buffer];
    const result = await runJob(
      (job) => symbols.oci_blob_import(span, source, cache, map, error, job),
      error,
    );
    if (result < 0) throw openError(result, paths, error);
  }

  /** The number in C. Throws once released: numbers are never used twice, so a late call can do no harm, only fail. */
  get id(): number {
    if (this.#released !== undefined) throw new NativeError("RELEASED", "the layer blob was released");
    return this.#id;
  }

  get released(): boolean {
    return this.#released !== undefined;
  }

  span(index: number): Span {
    if (!(index >= 0 && index < this.spanCount))
      throw new NativeError("ERANGE", `span ${index} of ${this.spanCount}: ERANGE`);
    // Read once: every miss is planned with it, and a call for each span would hold up the loop.
    this.#spans ??= this.#readSpans();
    const at = index * fieldsPerSpan;
    return {
      compOffset: this.#spans[at]!,
      compLength: this.#spans[at + 1]!,
      tarOffset: this.#spans[at + 2]!,
      tarLength: this.#spans[at + 3]!,
      blobOffset: this.#spans[at + 4]!,
    };
  }

  #readSpans(): Float64Array {
    const spans = new Float64Array(Math.max(1, this.spanCount * fieldsPerSpan));
    checked(symbols.oci_blob_spans(this.id, spans, this.spanCount), "the spans of a layer");
    return spans;
  }

  /** Notes from now on which spans are read, until {@link endTouches}. Only before the blob is mounted. */
  beginTouches(): void {
    checked(symbols.oci_touches_begin(this.id), "noting what is read");
  }

  /**
   * Of each span the number of its first read since {@link beginTouches}, counted over all blobs of the process, so that
   * they can be put into one order; 0 for those that were not read.
   */
  touches(): Uint32Array {
    const out = new Uint32Array(Math.max(1, this.spanCount));
    checked(symbols.oci_touches(this.id, out, this.spanCount), "what was read");
    return out.subarray(0, this.spanCount);
  }

  endTouches(): void {
    if (!this.released) symbols.oci_touches_end(this.#id);
  }

  /** Whether the span needs no fetch: it is in the cache file, though perhaps not proved yet. */
  isPresent(index: number): boolean {
    return checked(symbols.oci_blob_is_present(this.id, index), `span ${index} of ${this.spanCount}`) === 1;
  }

  /** How many spans need no fetch. */
  presentCount(): number {
    return Number(symbols.oci_blob_present_count(this.id));
  }

  /** The first span at or after `from` that is not in the cache file; -1: none. */
  nextMissing(from: number): number {
    return Number(symbols.oci_blob_next_missing(this.id, from));
  }

  /** The spans that a range of the blob takes; undefined for a hole. */
  spansOf(blobOffset: number, lengthBytes: number): { first: number; last: number } | undefined {
    const out = new Uint32Array(2);
    const found = checked(
      symbols.oci_blob_spans_of(this.id, blobOffset, lengthBytes, out),
      "spans of a range",
    );
    return found === 0 ? undefined : { first: out[0]!, last: out[1]! };
  }

  /** All spans are there, and proved: the cache file is a plain whole file, fit to be a device of EROFS. */
  get complete(): boolean {
    return checked(symbols.oci_blob_is_complete(this.id), "whether a layer is complete") === 1;
  }

  /**
   * Reads all that is not proved yet, on the native threads, behind what readers wait for. Resolves to the number of spans
   * that were not what had been stored: they are missing now.
   */
  async prove(): Promise<number> {
    const result = await runJob((job) => symbols.oci_blob_prove(this.id, job));
    return checked(result, `${this.cachePath} could not be read through`);
  }

  /**
   * Gives the blob back. Resolves when data and bitmap are durable on the disk; mounts that still use the blob keep
   * it alive and make it durable later. Idempotent.
   */
  release(): Promise<void> {
    if (this.#released === undefined) {
      living.delete(this.#id);
      this.#released = runJob((job) => symbols.oci_blob_release(this.#id, job)).then((result) => {
        checked(result, `${this.cachePath} could not be made durable`);
      });
      this.#released.catch(() => {}); // who does not wait does not care
    }
    return this.#released;
  }
}

function openError(result: number, paths: LayerBlobPaths, text: Buffer): NativeError {
  const reason = text.toString("utf8", 0, Math.max(0, text.indexOf(0)));
  const name = errnoName(result);
  if (name === "EBADMSG") {
    return new NativeError("BAD_SPAN_FILE", `${paths.spanPath} is not a valid span file: ${reason}`, {
      next: "Build the image again.",
    });
  }
  return new NativeError(name, `${paths.cachePath} could not be opened: ${reason || name}`);
}
