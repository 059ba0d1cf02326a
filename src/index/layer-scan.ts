import type { PointStatus } from "../native/points.ts";
import { IndexError } from "./error.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";
import type { SpanTable } from "./span-table.ts";
import type { SpanKind } from "./types.ts";

/**
 * Takes a layer's compressed bytes, gives its tar bytes away, and cuts it into spans. One implementation per
 * compression.
 */
export interface LayerScan {
  /** @throws {IndexError} `bad_layer`, `limit_exceeded`, and what the taker of the tar bytes throws */
  push(chunk: Uint8Array): void;
  /** Says that all bytes were pushed. @throws {IndexError} `bad_layer` when something is missing */
  finish(): { kind: SpanKind; spans: SpanTable };
  /** Frees what the scan holds outside of the JavaScript heap. */
  close(): void;
}

/** Where a scan's output goes. */
export interface ScanSinks {
  /** Tar bytes, valid during the call only. */
  tar(bytes: Uint8Array): void;
  /** Keeps an inflate window; returns its offset from the start of the windows. */
  window(stored: Uint8Array): number;
  /** Bytes of the span file so far, but for the span table. */
  storedBytes(): number;
}

/** Counts what a layer inflates to, against the limits. */
export class InflationMeter {
  readonly #limits: IndexLimits;
  compressedBytes = 0;
  tarBytes = 0;

  constructor(limits: IndexLimits) {
    this.#limits = limits;
  }

  /** @throws {IndexError} `limit_exceeded` */
  add(compressed: number, tar: number): void {
    this.compressedBytes += compressed;
    this.tarBytes += tar;
    checkLimit(this.#limits, "tarBytesMax", this.tarBytes, () => "the layer's uncompressed bytes");
    if (this.tarBytes <= this.#limits.ratioFreeBytes) return;
    const ratio = Math.floor(this.tarBytes / Math.max(1, this.compressedBytes));
    checkLimit(this.#limits, "ratioMax", ratio, () => "the layer's uncompressed bytes per compressed byte");
  }

  /** @throws {IndexError} `limit_exceeded` when a span that began at these places is too long by now */
  checkSpan(compOffset: number, tarOffset: number): void {
    const length = Math.max(this.compressedBytes - compOffset, this.tarBytes - tarOffset);
    checkLimit(this.#limits, "spanBytesMax", length, () => "a piece without a place to begin in it");
  }
}

/** The error for a step of the decompressor that failed; `problem` is what zlib or zstd said. */
export function scanFailure(format: string, near: number, status: PointStatus, problem: string): IndexError {
  const where = `the ${format} layer, near byte ${near}`;
  if (status === "windowTooLarge") {
    return new IndexError("limit_exceeded", `${where}, asks for a window of more than 128 MiB`, {
      next: "Compress the layer without --long.",
    });
  }
  if (status === "noMemory") {
    return new IndexError(
      "limit_exceeded",
      `${where}, takes more memory than indexing is allowed: no memory`,
      {
        next: "Compress the layer with a smaller window.",
      },
    );
  }
  return new IndexError("bad_layer", `${where}, breaks: ${problem}`, { next: "Push the image again." });
}
