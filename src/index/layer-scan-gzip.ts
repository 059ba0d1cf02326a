import { PointScanner, type PointStatus } from "../native/points.ts";
import { IndexError } from "./error.ts";
import { InflationMeter, type LayerScan, type ScanSinks, scanFailure } from "./layer-scan.ts";
import type { IndexLimits } from "./limits.ts";
import { type Span, SpanTable } from "./span-table.ts";
import { spanBytes, spanFile } from "./types.ts";

const outputBytes = 1024 * 1024;
/** What the span file should be of the compressed layer at most: places to begin at are farther apart where it would not. */
const storedShareMax = 0.0195;
/** But never farther than this, in spans. */
const stretchMax = 2;

/** Where a span begins: what its record says, but for its length and hash. */
type SpanStart = Omit<Span, "compLength" | "tarLength" | "sha256">;

/**
 * A gzip layer (RFC 1952), one member or several. A span begins at the first deflate block boundary, or member, that is
 * at least {@link spanBytes} of output after the last one; it may hold the ends and beginnings of further members.
 * What follows the last member (padding, garbage) is ignored, as gzip does; it belongs to the layer's digest only.
 */
export class GzipScan implements LayerScan {
  readonly #sinks: ScanSinks;
  readonly #meter: InflationMeter;
  readonly #output = new Uint8Array(outputBytes);
  readonly #scanner = PointScanner.open("gzip", this.#output);
  readonly #spans = new SpanTable();
  #hasher = new Bun.CryptoHasher("sha256");
  #span: SpanStart = memberStart(0, 0);
  #lastByte = 0;
  /** Of the last window; a guess before there is one. */
  #windowBytes = 12 * 1024;
  #insideMember = false;
  #members = 0;
  #trailing = false;

  constructor(sinks: ScanSinks, limits: IndexLimits) {
    this.#sinks = sinks;
    this.#meter = new InflationMeter(limits);
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; !this.#trailing; ) {
      const length = this.#meter.tarBytes - this.#span.tarOffset;
      const cutNext = length >= spanBytes;
      const status = this.#scanner.step(
        chunk.subarray(at),
        cutNext ? outputBytes : Math.min(outputBytes, spanBytes - length),
        cutNext,
      );
      this.#advance(chunk, at, status);
      at += this.#scanner.consumed;
      if (status === "block" && this.#isWorthIt()) this.#cutAtBlock();
      else if (status === "memberEnd" && this.#meter.tarBytes - this.#span.tarOffset >= spanBytes) {
        this.#cut(memberStart(this.#meter.compressedBytes, this.#meter.tarBytes));
      } else if (status === "input") return;
    }
  }

  finish(): ReturnType<LayerScan["finish"]> {
    if (this.#insideMember || this.#members === 0) {
      throw new IndexError("bad_layer", `the gzip layer ends early, at byte ${this.#meter.compressedBytes}`, {
        next: "Push the image again.",
      });
    }
    this.#cut(memberStart(0, this.#meter.tarBytes));
    return { kind: spanFile.kinds.gzip, spans: this.#spans };
  }

  close(): void {
    this.#scanner.close();
  }

  /** Accounts for one step: counts, hashes, hands the output on. */
  #advance(chunk: Uint8Array, at: number, status: PointStatus): void {
    const { consumed, produced } = this.#scanner;
    if (status === "trailing") {
      this.#trailing = true;
      this.#insideMember = false;
      return;
    }
    if (consumed > 0) {
      this.#hasher.update(chunk.subarray(at, at + consumed));
      this.#lastByte = chunk[at + consumed - 1] ?? 0;
      this.#insideMember = true;
    }
    this.#meter.add(consumed, produced);
    this.#meter.checkSpan(this.#span.compOffset, this.#span.tarOffset);
    if (status === "memberEnd") {
      this.#insideMember = false;
      this.#members += 1;
    } else if (status === "badData" || status === "noMemory" || status === "windowTooLarge") {
      throw scanFailure("gzip", this.#meter.compressedBytes, status, this.#scanner.problem());
    }
    if (produced > 0) this.#sinks.tar(this.#output.subarray(0, produced));
  }

  /** Whether a place to begin at may be stored here. */
  #isWorthIt(): boolean {
    if (this.#meter.tarBytes - this.#span.tarOffset >= stretchMax * spanBytes) return true;
    const table = (this.#spans.count + 2) * spanFile.spanBytes;
    const stored = this.#sinks.storedBytes() + this.#windowBytes + table;
    return stored <= this.#meter.compressedBytes * storedShareMax;
  }

  /** Ends the span where the deflate block ended: maybe inside of a byte, which both spans then have. */
  #cutAtBlock(): void {
    const { unusedBits } = this.#scanner;
    const window = this.#scanner.window();
    this.#windowBytes = window.stored.length;
    const shared = unusedBits > 0 ? 1 : 0;
    this.#cut({
      compOffset: this.#meter.compressedBytes - shared,
      tarOffset: this.#meter.tarBytes,
      windowOffset: window.stored.length === 0 ? 0 : this.#sinks.window(window.stored),
      windowStoredBytes: window.stored.length,
      windowInflatedBytes: window.inflatedBytes,
      bits: shared === 0 ? 0 : 8 - unusedBits,
      memberStart: false,
    });
    if (shared > 0) this.#hasher.update(Uint8Array.of(this.#lastByte));
  }

  #cut(next: SpanStart): void {
    const tarLength = this.#meter.tarBytes - this.#span.tarOffset;
    if (tarLength > 0) {
      const compLength = this.#meter.compressedBytes - this.#span.compOffset;
      this.#spans.add({ ...this.#span, compLength, tarLength, sha256: this.#hasher.digest() });
    }
    this.#hasher = new Bun.CryptoHasher("sha256");
    this.#span = next;
  }
}

function memberStart(compOffset: number, tarOffset: number): SpanStart {
  return {
    compOffset,
    tarOffset,
    windowOffset: 0,
    windowStoredBytes: 0,
    windowInflatedBytes: 0,
    bits: 0,
    memberStart: true,
  };
}
