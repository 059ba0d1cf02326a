/** Misses out, fetched bytes in: what turns compressed spans into parts of a blob, off the JavaScript thread. */
import { constants } from "node:os";
import { logger } from "../std/log.ts";
import { type LayerBlob, livingBlob, spanKinds } from "./blob.ts";
import { checked, receiveMisses, runJob, startDoorbell } from "./doorbell.ts";
import { loadShim } from "./shim.ts";
import { StreamedSpans, type StreamFill, ZstdStream } from "./stream.ts";

const { symbols } = loadShim({
  oci_fill: { args: ["u32", "u32", "u32", "buffer", "u64", "buffer", "u32"], returns: "i32" },
  oci_fail: { args: ["u32", "u32", "i32"], returns: "i32" },
  oci_progress: { args: ["u32", "u64"], returns: "i32" },
  oci_pool_size: { args: ["u32"], returns: "void" },
});

/**
 * `present`: in the cache file. `no_space`: it could not be stored, but everybody who waited was served.
 * `digest_mismatch`, `inflate_error`: the bytes are not what the index says; who waited goes on waiting, for another
 * `fill` or for `fail`.
 */
export type FillStatus = "present" | "digest_mismatch" | "inflate_error" | "no_space";

export interface FillResult {
  readonly span: number;
  readonly status: FillStatus;
}

const statusOf: Readonly<Record<number, FillStatus>> = {
  1: "present",
  2: "digest_mismatch",
  3: "inflate_error",
  4: "no_space",
};

export type MissHandler = (blob: LayerBlob, span: number) => void;

const log = logger("native");
let engine: Engine | undefined;

/** One per process: the doorbell and the pool of inflate threads. */
export class Engine {
  #onMiss: MissHandler | undefined;
  readonly #damaged = new WeakSet<LayerBlob>();

  private constructor() {
    receiveMisses((view, span, damaged) => {
      const blob = livingBlob(view);
      if (damaged > 0) this.#damageFound(blob);
      if (blob === undefined || this.#onMiss === undefined) {
        symbols.oci_fail(view, span, constants.errno.EIO);
        return;
      }
      try {
        this.#onMiss(blob, span);
      } catch (error) {
        log.error("the miss handler threw", { error, layer: blob.layerDigest, span });
        this.fail(blob, span);
      }
    });
    startDoorbell();
  }

  /** Once per layer: what was damaged once is looked at span by span, and may give hundreds of these. */
  #damageFound(blob: LayerBlob | undefined): void {
    if (blob === undefined || this.#damaged.has(blob)) return;
    this.#damaged.add(blob);
    log.warning("the cache of a layer was damaged: what is not as it was stored is fetched again", {
      layer: blob.layerDigest,
      file: blob.cachePath,
    });
  }

  static get(): Engine {
    engine ??= new Engine();
    return engine;
  }

  /**
   * Sets the one receiver of misses. A span is reported once until it is filled or failed, or until a reader's
   * deadline has passed; at most 64 per turn of the event loop. The handler must not throw and must not wait.
   */
  onMiss(handler: MissHandler): void {
    this.#onMiss = handler;
  }

  /** The number of inflate threads, before the first fill; by default as many as cores, at least two. */
  setInflateThreads(count: number): void {
    symbols.oci_pool_size(count);
  }

  /**
   * Verifies, inflates and stores the spans `firstSpan` … `lastSpan` and answers who waits for them. `bytes` are the
   * layer's from the first span's `compOffset` to the end of the last span; they must not be changed or transferred
   * until the promise ends. Throws `EMSGSIZE` when they are too few, `EOPNOTSUPP` for a layer that only streams.
   */
  async fill(blob: LayerBlob, firstSpan: number, lastSpan: number, bytes: Uint8Array): Promise<FillResult[]> {
    const statuses = new Uint8Array(Math.max(1, lastSpan - firstSpan + 1));
    const result = await runJob(
      (job) => symbols.oci_fill(blob.id, firstSpan, lastSpan, bytes, bytes.byteLength, statuses, job),
      bytes,
      statuses,
    );
    checked(result, `spans ${firstSpan} to ${lastSpan} of ${blob.layerDigest} could not be filled`);
    return Array.from(statuses, (status, i) => ({ span: firstSpan + i, status: statusOf[status]! }));
  }

  /** A pass over the whole layer from its first byte, for layers or registries without random access. */
  streamOpen(blob: LayerBlob): StreamFill {
    return blob.kind === spanKinds.zstdStream
      ? ZstdStream.open(blob)
      : new StreamedSpans(blob, (first, last, bytes) => this.fill(blob, first, last, bytes));
  }

  /**
   * Bytes of the layer have arrived, wanted or not: deadlines of readers who wait through this blob move on, by as much
   * as they should have taken at 8 MiB per deadline. `fill` and streams of the engine count by themselves.
   */
  progress(blob: LayerBlob, bytes: number): void {
    if (!blob.released) symbols.oci_progress(blob.id, bytes);
  }

  /** The span cannot be had now: who waits for it through this blob gets the error; a later read asks again. */
  fail(blob: LayerBlob, span: number, errno: "EIO" | "ENOSPC" | "EACCES" | "ETIMEDOUT" = "EIO"): void {
    if (blob.released) return;
    checked(symbols.oci_fail(blob.id, span, constants.errno[errno]), `span ${span}`);
  }
}
