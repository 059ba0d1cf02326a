import { InflationMeter, type LayerScan, type ScanSinks } from "./layer-scan.ts";
import type { IndexLimits } from "./limits.ts";
import { SpanTable } from "./span-table.ts";
import { spanBytes, spanFile } from "./types.ts";

/** Cuts a stream of tar bytes into pieces of {@link spanBytes} and hashes each. */
export class TarPieces {
  readonly spans = new SpanTable();
  /** Place of the layer's bytes that a piece is fetched from. */
  readonly #compressedRange: (tarOffset: number, tarLength: number) => { offset: number; length: number };
  #hasher = new Bun.CryptoHasher("sha256");
  #start = 0;
  #length = 0;

  constructor(compressedRange: (tarOffset: number, tarLength: number) => { offset: number; length: number }) {
    this.#compressedRange = compressedRange;
  }

  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const taken = Math.min(spanBytes - this.#length, bytes.length - at);
      this.#hasher.update(bytes.subarray(at, at + taken));
      this.#length += taken;
      at += taken;
      if (this.#length === spanBytes) this.#cut();
    }
  }

  finish(): void {
    if (this.#length > 0) this.#cut();
  }

  #cut(): void {
    const compressed = this.#compressedRange(this.#start, this.#length);
    this.spans.add({
      compOffset: compressed.offset,
      compLength: compressed.length,
      tarOffset: this.#start,
      tarLength: this.#length,
      windowOffset: 0,
      windowStoredBytes: 0,
      windowInflatedBytes: 0,
      bits: 0,
      memberStart: true,
      sha256: this.#hasher.digest(),
    });
    this.#hasher = new Bun.CryptoHasher("sha256");
    this.#start += this.#length;
    this.#length = 0;
  }
}

/** A layer that is a tar as it is. */
export class PlainScan implements LayerScan {
  readonly #sinks: ScanSinks;
  readonly #meter: InflationMeter;
  readonly #pieces = new TarPieces((offset, length) => ({ offset, length }));

  constructor(sinks: ScanSinks, limits: IndexLimits) {
    this.#sinks = sinks;
    this.#meter = new InflationMeter(limits);
  }

  push(chunk: Uint8Array): void {
    this.#meter.add(chunk.length, chunk.length);
    this.#pieces.push(chunk);
    this.#sinks.tar(chunk);
  }

  finish(): ReturnType<LayerScan["finish"]> {
    this.#pieces.finish();
    return { kind: spanFile.kinds.plain, spans: this.#pieces.spans };
  }

  close(): void {}
}
