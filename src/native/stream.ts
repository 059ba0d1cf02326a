/** Filling a blob from the layer's bytes in order, for what cannot be read at random. */
import type { LayerBlob } from "./blob.ts";
import { checked, errnoName, runJob } from "./doorbell.ts";
import type { FillResult } from "./engine.ts";
import { NativeError } from "./error.ts";
import { loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_stream_open: { args: ["u32"], returns: "i32" },
  oci_stream_push: { args: ["u32", "buffer", "u64", "u32"], returns: "i32" },
  oci_stream_close: { args: ["u32"], returns: "i64" },
});

/**
 * One pass over a layer. `push` pieces in order, waiting for each; then `end`. A failed push or end throws
 * {@link NativeError}: `DIGEST_MISMATCH`, `BAD_LAYER` (not decompressible), `TRUNCATED` (fewer bytes than the index says).
 * Spans that were verified before the failure stay. `close` gives up early; idempotent, and `end` includes it.
 */
export interface StreamFill {
  push(bytes: Uint8Array): Promise<void>;
  end(): Promise<void>;
  close(): void;
}

/** A zstd layer in one frame: the decompressor runs in C and verifies each span's tar bytes. */
export class ZstdStream implements StreamFill {
  readonly #id: number;
  readonly #blob: LayerBlob;
  #open = true;

  private constructor(id: number, blob: LayerBlob) {
    this.#id = id;
    this.#blob = blob;
  }

  static open(blob: LayerBlob): ZstdStream {
    return new ZstdStream(checked(symbols.oci_stream_open(blob.id), "stream"), blob);
  }

  async push(bytes: Uint8Array): Promise<void> {
    if (bytes.byteLength === 0) return;
    const result = await runJob(
      (job) => symbols.oci_stream_push(this.#id, bytes, bytes.byteLength, job),
      bytes,
    );
    if (result >= 0) return;
    const code = errnoName(result);
    if (code === "EBADMSG") throw mismatch(this.#blob);
    if (code === "EILSEQ") throw badLayer(this.#blob);
    throw new NativeError(code, `${this.#blob.layerDigest}: the streaming pass failed: ${code}`);
  }

  async end(): Promise<void> {
    if (!this.#open) return;
    const left = this.#close();
    if (left > 0) throw truncated(this.#blob, left);
  }

  close(): void {
    this.#close();
  }

  #close(): number {
    if (!this.#open) return 0;
    this.#open = false;
    return Number(symbols.oci_stream_close(this.#id));
  }
}

type Fill = (first: number, last: number, bytes: Uint8Array) => Promise<FillResult[]>;

/** Layers with random access from a registry without: spans are cut from the stream and filled like fetched ones. */
export class StreamedSpans implements StreamFill {
  readonly #blob: LayerBlob;
  readonly #fill: Fill;
  /** The bytes not yet used, and the layer offset of the first of them. */
  #held: Uint8Array = new Uint8Array(0);
  #heldOffset = 0;
  #nextSpan = 0;

  constructor(blob: LayerBlob, fill: Fill) {
    this.#blob = blob;
    this.#fill = fill;
  }

  async push(bytes: Uint8Array): Promise<void> {
    this.#held = this.#held.byteLength === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    const first = this.#nextSpan;
    if (first >= this.#blob.spanCount) {
      this.#held = new Uint8Array(0);
      return;
    }
    const reach = this.#heldOffset + this.#held.byteLength;
    let next = first;
    let start = this.#blob.span(first).compOffset;
    const from = start;
    for (; next < this.#blob.spanCount; next++) {
      const span = this.#blob.span(next);
      start = span.compOffset;
      if (span.compOffset + span.compLength > reach) break;
    }
    if (next === first) return;
    const cut = this.#held.subarray(from - this.#heldOffset);
    this.#nextSpan = next;
    if (next < this.#blob.spanCount) {
      // Copied: what is filled must not be kept alive by the few bytes that come after it.
      this.#held = this.#held.slice(start - this.#heldOffset);
      this.#heldOffset = start;
    } else {
      this.#held = new Uint8Array(0);
    }
    const results = await this.#fill(first, next - 1, cut);
    if (results.some((result) => result.status === "digest_mismatch")) throw mismatch(this.#blob);
    if (results.some((result) => result.status === "inflate_error")) throw badLayer(this.#blob);
  }

  async end(): Promise<void> {
    const left = this.#blob.spanCount - this.#nextSpan;
    if (left > 0) throw truncated(this.#blob, left);
  }

  close(): void {
    this.#held = new Uint8Array(0);
  }
}

function mismatch(blob: LayerBlob): NativeError {
  return new NativeError(
    "DIGEST_MISMATCH",
    `${blob.layerDigest}: the registry's bytes differ from the index`,
    {
      next: "The layer changed or was damaged on the way; build the image again if it stays so.",
    },
  );
}

function badLayer(blob: LayerBlob): NativeError {
  return new NativeError("BAD_LAYER", `${blob.layerDigest}: the layer cannot be decompressed`);
}

function truncated(blob: LayerBlob, spansLeft: number): NativeError {
  return new NativeError("TRUNCATED", `${blob.layerDigest}: the layer ended ${spansLeft} spans too early`);
}
