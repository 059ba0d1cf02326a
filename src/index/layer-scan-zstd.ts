import { PointScanner } from "../native/points.ts";
import { IndexError } from "./error.ts";
import { InflationMeter, type LayerScan, type ScanSinks, scanFailure } from "./layer-scan.ts";
import { TarPieces } from "./layer-scan-plain.ts";
import type { IndexLimits } from "./limits.ts";
import { SpanTable } from "./span-table.ts";
import { spanBytes, spanFile } from "./types.ts";

const outputBytes = 1024 * 1024;
/** A span by frames that is longer than this makes the layer one to stream: a read must not cost that much. */
const frameSpanBytesMax = 64 * 1024 * 1024;

/**
 * A zstd layer (RFC 8878). Frames are the only places to begin at: a layer of many frames (pzstd, zstd:chunked) is cut
 * at the first frame end that is at least {@link spanBytes} of output after the last cut. A layer that is one big frame,
 * as most builders make them, can only be streamed: it is cut by its tar bytes, each piece with the hash of those.
 */
export class ZstdScan implements LayerScan {
  readonly #sinks: ScanSinks;
  readonly #meter: InflationMeter;
  readonly #output = new Uint8Array(outputBytes);
  readonly #scanner = PointScanner.open("zstd", this.#output);
  readonly #pieces: TarPieces;
  #frames: FrameSpans | undefined = new FrameSpans();
  #insideFrame = false;
  #frameCount = 0;

  /** @param layerBytes compressed size of the layer */
  constructor(layerBytes: number, sinks: ScanSinks, limits: IndexLimits) {
    this.#sinks = sinks;
    this.#meter = new InflationMeter(limits);
    this.#pieces = new TarPieces(() => ({ offset: 0, length: layerBytes }));
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; ; ) {
      const status = this.#scanner.step(chunk.subarray(at), outputBytes, false);
      const { consumed, produced } = this.#scanner;
      if (consumed > 0 || produced > 0) this.#insideFrame = true;
      this.#meter.add(consumed, produced);
      this.#frames?.add(chunk.subarray(at, at + consumed), produced);
      at += consumed;
      if (produced > 0) {
        const tar = this.#output.subarray(0, produced);
        this.#pieces.push(tar);
        this.#sinks.tar(tar);
      }
      if (status === "memberEnd") {
        this.#insideFrame = false;
        this.#frameCount += 1;
        this.#frames?.endFrame();
      } else if (status === "input") {
        break;
      } else if (status !== "output") {
        throw scanFailure("zstd", this.#meter.compressedBytes, status, this.#scanner.problem());
      }
    }
    if (this.#frames?.tooLong === true) this.#frames = undefined;
  }

  finish(): ReturnType<LayerScan["finish"]> {
    if (this.#insideFrame || this.#frameCount === 0) {
      throw new IndexError("bad_layer", `the zstd layer ends early, at byte ${this.#meter.compressedBytes}`, {
        next: "Push the image again.",
      });
    }
    this.#pieces.finish();
    const byFrames = this.#frames?.finish();
    const useFrames = byFrames !== undefined && (byFrames.count > 1 || this.#meter.tarBytes <= 2 * spanBytes);
    return useFrames
      ? { kind: spanFile.kinds.zstdFrames, spans: byFrames }
      : { kind: spanFile.kinds.zstdStream, spans: this.#pieces.spans };
  }

  close(): void {
    this.#scanner.close();
  }
}

/** Cuts spans at frame ends. What follows the last frame that has content (skippable frames) belongs to no span. */
class FrameSpans {
  readonly #spans = new SpanTable();
  #hasher = new Bun.CryptoHasher("sha256");
  #compOffset = 0;
  #tarOffset = 0;
  #comp = 0;
  #tar = 0;
  /** Where the last frame that put something out ended, while nothing came after it. */
  #end: { comp: number; tar: number; hasher: Bun.CryptoHasher } | undefined;

  get tooLong(): boolean {
    return Math.max(this.#tar - this.#tarOffset, this.#comp - this.#compOffset) > frameSpanBytesMax;
  }

  add(compressed: Uint8Array, tarLength: number): void {
    if (compressed.length > 0) this.#hasher.update(compressed);
    this.#comp += compressed.length;
    this.#tar += tarLength;
  }

  endFrame(): void {
    const hadContent = this.#tar > (this.#end?.tar ?? this.#tarOffset);
    if (!hadContent || this.tooLong) return;
    this.#end = { comp: this.#comp, tar: this.#tar, hasher: this.#hasher.copy() };
    if (this.#tar - this.#tarOffset >= spanBytes) this.#cut();
  }

  finish(): SpanTable {
    this.#cut();
    return this.#spans;
  }

  #cut(): void {
    const end = this.#end;
    if (end === undefined) return;
    this.#spans.add({
      compOffset: this.#compOffset,
      compLength: end.comp - this.#compOffset,
      tarOffset: this.#tarOffset,
      tarLength: end.tar - this.#tarOffset,
      windowOffset: 0,
      windowStoredBytes: 0,
      windowInflatedBytes: 0,
      bits: 0,
      memberStart: true,
      sha256: end.hasher.digest(),
    });
    this.#compOffset = end.comp;
    this.#tarOffset = end.tar;
    this.#end = undefined;
    this.#hasher = new Bun.CryptoHasher("sha256");
  }
}
