import type { ExtentSink } from "./layer-entries.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";
import { spanFile } from "./types.ts";

/** A piece of a layer that can be fetched, checked and inflated without the others; see `types.ts`, "span". */
export interface Span {
  readonly compOffset: number;
  readonly compLength: number;
  readonly tarOffset: number;
  readonly tarLength: number;
  /** From the start of the windows. */
  readonly windowOffset: number;
  readonly windowStoredBytes: number;
  readonly windowInflatedBytes: number;
  /** Low bits of the first byte that belong to the span before. */
  readonly bits: number;
  readonly memberStart: boolean;
  readonly sha256: Uint8Array;
}

const pieceBytes = 1024 * 1024;
/** Three numbers below 2^53. */
const packedExtentBytesMax = 3 * 8;
/** Spans of one piece of a table. */
const pieceSpans = 16 * 1024;

/**
 * The span table as it stands in a span file, but for the blob offsets, which {@link SpanTable.seal} fills in. In pieces:
 * a layer with a table of its own may have millions of spans.
 */
export class SpanTable {
  readonly #pieces: Buffer[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(span: Span): void {
    const at = (this.#count % pieceSpans) * spanFile.spanBytes;
    if (at === 0) this.#pieces.push(Buffer.alloc(pieceSpans * spanFile.spanBytes));
    const bytes = this.#pieces.at(-1) as Buffer;
    writeNumber(bytes, span.compOffset, at);
    writeNumber(bytes, span.compLength, at + 8);
    writeNumber(bytes, span.tarOffset, at + 16);
    writeNumber(bytes, span.tarLength, at + 24);
    writeNumber(bytes, span.windowOffset, at + 40);
    bytes.writeUInt32LE(span.windowStoredBytes, at + 48);
    bytes.writeUInt32LE(span.windowInflatedBytes, at + 52);
    bytes[at + 56] = span.bits;
    bytes[at + 57] = span.memberStart ? 1 : 0;
    bytes.set(span.sha256, at + 64);
    this.#count += 1;
  }

  /** The table's bytes, each span with the place where the first byte goes that it or a later one gives to the blob. */
  *seal(extents: ExtentTable, blobBytes: number): Generator<Buffer> {
    let extent = 0;
    for (const [index, piece] of this.#pieces.entries()) {
      const count = Math.min(pieceSpans, this.#count - index * pieceSpans);
      const bytes = piece.subarray(0, count * spanFile.spanBytes);
      for (let at = 0; at < bytes.length; at += spanFile.spanBytes) {
        const tarOffset = Number(bytes.readBigUInt64LE(at + 16));
        while (extent < extents.count && extents.tarEnd(extent) <= tarOffset) extent += 1;
        const blobOffset = extent < extents.count ? extents.blobOffsetFrom(extent, tarOffset) : blobBytes;
        writeNumber(bytes, blobOffset, at + 32);
      }
      yield bytes;
    }
  }
}

/** The extent table: runs of tar bytes and where they go in the blob, both ascending; neighbours are merged. */
export class ExtentTable implements ExtentSink {
  readonly #limits: IndexLimits;
  #numbers = new Float64Array(3 * 1024);
  #count = 0;

  constructor(limits: IndexLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#count;
  }

  addExtent(tarOffset: number, blobOffset: number, length: number): void {
    const last = this.#count * 3 - 3;
    if (last >= 0) {
      const lastLength = this.#number(last + 2);
      const follows =
        this.#number(last) + lastLength === tarOffset && this.#number(last + 1) + lastLength === blobOffset;
      if (follows) {
        this.#numbers[last + 2] = lastLength + length;
        return;
      }
    }
    checkLimit(this.#limits, "extentsMax", this.#count + 1, () => "the runs of file data in the layer");
    if (last + 6 > this.#numbers.length) {
      const grown = new Float64Array(this.#numbers.length * 2);
      grown.set(this.#numbers);
      this.#numbers = grown;
    }
    this.#numbers.set([tarOffset, blobOffset, length], last + 3);
    this.#count += 1;
  }

  tarEnd(at: number): number {
    return this.#number(at * 3) + this.#number(at * 3 + 2);
  }

  /** Where the byte at `tarOffset`, or the extent's first when that is later, goes. */
  blobOffsetFrom(at: number, tarOffset: number): number {
    return this.#number(at * 3 + 1) + Math.max(0, tarOffset - this.#number(at * 3));
  }

  /** The packed table's bytes in pieces of about a megabyte. */
  *pieces(): Generator<Buffer> {
    let piece = Buffer.allocUnsafe(pieceBytes);
    let filled = 0;
    let [tarEnd, blobEnd] = [0, 0];
    for (let at = 0; at < this.#count * 3; at += 3) {
      const [tarOffset, blobOffset, length] = [this.#number(at), this.#number(at + 1), this.#number(at + 2)];
      filled = putPacked(piece, tarOffset - tarEnd, filled);
      filled = putPacked(piece, blobOffset - blobEnd, filled);
      filled = putPacked(piece, length, filled);
      tarEnd = tarOffset + length;
      blobEnd = blobOffset + length;
      if (filled < pieceBytes - packedExtentBytesMax) continue;
      yield piece.subarray(0, filled);
      piece = Buffer.allocUnsafe(pieceBytes);
      filled = 0;
    }
    if (filled > 0) yield piece.subarray(0, filled);
  }

  #number(at: number): number {
    return this.#numbers[at] ?? 0;
  }
}

/** Writes a number as a packed extent has it (`types.ts`); returns the place after it. */
function putPacked(bytes: Buffer, value: number, at: number): number {
  let [left, next] = [value, at];
  for (; left >= 128; left = Math.floor(left / 128)) {
    bytes[next] = 0x80 | (left % 128);
    next += 1;
  }
  bytes[next] = left;
  return next + 1;
}

/** Writes a whole number up to 2^53 as a little-endian u64. */
export function writeNumber(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}
