import { unusable } from "./chunk-table.ts";
import { type ChunkTableEntry, memberOf, parseChunkTableEntry } from "./chunk-table-entry.ts";
import type { LayerEntries } from "./layer-entries.ts";
import { InflationMeter } from "./layer-scan.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";
import { SpanTable } from "./span-table.ts";
import { quoteName } from "./tar-name.ts";
import type { SparseSegment } from "./tar-sparse.ts";

/** A file whose chunks are not all there yet. */
interface OpenFile {
  readonly entry: ChunkTableEntry;
  /** Where its first chunk begins in the stream of all chunks. */
  readonly start: number;
  readonly segments: SparseSegment[];
  /** Bytes of the file that its chunks so far cover. */
  covered: number;
  sparse: boolean;
}

/** A chunk whose member's end in the layer is not known yet. */
interface OpenChunk {
  readonly tarOffset: number;
  readonly tarLength: number;
  readonly before: number;
  readonly sha256: Uint8Array;
}

/**
 * Turns the entries of a chunk table into members for {@link LayerEntries} and chunks into spans. Everything that the
 * table says is compared: chunks cover their file exactly, in order, and lie in the layer in that order.
 */
export class ChunkedFiles {
  readonly #layerBytes: number;
  readonly #dataEnd: number;
  readonly #limits: IndexLimits;
  readonly #entries: LayerEntries;
  readonly #spans = new SpanTable();
  readonly #meter: InflationMeter;
  #count = 0;
  #file: OpenFile | undefined;
  /** The member that was named last, and its chunks. */
  #offset = 0;
  #chunks: OpenChunk[] = [];
  #length = 0;

  /** @param dataEnd the layer's chunks end there at the latest */
  constructor(layerBytes: number, dataEnd: number, limits: IndexLimits, entries: LayerEntries) {
    this.#layerBytes = layerBytes;
    this.#dataEnd = dataEnd;
    this.#limits = limits;
    this.#entries = entries;
    this.#meter = new InflationMeter(limits);
    this.#meter.add(this.#layerBytes, 0);
  }

  /** Bytes of all chunks so far: the stream that the spans cut. */
  get chunkBytes(): number {
    return this.#length;
  }

  /** @throws {IndexError} `bad_layer`, `bad_tar`, `limit_exceeded` */
  add(value: unknown): void {
    this.#count += 1;
    checkLimit(this.#limits, "entriesMax", this.#count, () => "the entries of the layer's table of contents");
    const entry = parseChunkTableEntry(value);
    if (entry.type === "chunk") {
      if (this.#file === undefined || entry.name !== this.#file.entry.name)
        throw unusable(`a chunk of ${shown(entry)} stands alone`);
      this.#addChunk(this.#file, entry);
      return;
    }
    this.#closeFile();
    if (entry.type !== "reg" || entry.size === 0) {
      this.#entries.add(memberOf(entry, { dataOffset: 0, dataBytes: 0, segments: undefined }));
      return;
    }
    this.#file = { entry, start: this.#length, segments: [], covered: 0, sparse: false };
    this.#addChunk(this.#file, entry);
  }

  /** Says that all entries were added. */
  finish(): SpanTable {
    this.#closeFile();
    this.#closeMember(this.#dataEnd);
    return this.#spans;
  }

  #addChunk(file: OpenFile, chunk: ChunkTableEntry): void {
    const { size } = file.entry;
    const length = chunk.chunkSize === 0 ? size - file.covered : chunk.chunkSize;
    if (chunk.chunkOffset !== file.covered || length <= 0 || length > size - file.covered)
      throw unusable(`the chunks of ${shown(file.entry)} do not follow one another`);
    if (chunk.chunkType === "zeros") {
      file.sparse = true;
    } else {
      // A file of one chunk may have the digest of the file alone.
      const digest = chunk.chunkDigest === "" && length === size ? file.entry.digest : chunk.chunkDigest;
      this.#openChunk(chunk, length, digest);
      const last = file.segments.at(-1);
      if (last !== undefined && last.offset + last.length === file.covered)
        file.segments[file.segments.length - 1] = { offset: last.offset, length: last.length + length };
      else file.segments.push({ offset: file.covered, length });
      checkLimit(this.#limits, "sparseSegmentsMax", file.segments.length, () => shown(file.entry));
    }
    file.covered += length;
  }

  #openChunk(chunk: ChunkTableEntry, length: number, digest: string): void {
    const { offset, innerOffset } = chunk;
    const hex = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1];
    if (hex === undefined) throw unusable(`a chunk of ${shown(chunk)} has no SHA-256`);
    const reach = innerOffset + length;
    checkLimit(this.#limits, "spanBytesMax", reach, () => `a chunk of ${shown(chunk)}`);
    const open = this.#chunks.at(-1);
    const sharesMember = open !== undefined && offset === this.#offset;
    if (sharesMember ? innerOffset < open.before + open.tarLength : offset < this.#offset)
      throw unusable(`a chunk of ${shown(chunk)} lies before the one that it follows`);
    if (offset >= this.#dataEnd)
      throw unusable(`a chunk of ${shown(chunk)} lies outside of the layer's data`);
    if (!sharesMember) this.#closeMember(offset);
    this.#offset = offset;
    this.#meter.add(0, length);
    this.#chunks.push({
      tarOffset: this.#length,
      tarLength: length,
      before: innerOffset,
      sha256: Buffer.from(hex, "hex"),
    });
    this.#length += length;
  }

  /** The chunks of the last member end, at the latest, where the next one begins. */
  #closeMember(end: number): void {
    const compLength = end - this.#offset;
    if (this.#chunks.length > 0)
      checkLimit(this.#limits, "spanBytesMax", compLength, () => "the compressed bytes of a chunk");
    for (const { tarOffset, tarLength, before, sha256 } of this.#chunks)
      this.#spans.add({
        compOffset: this.#offset,
        compLength,
        tarOffset,
        tarLength,
        windowOffset: before,
        windowStoredBytes: 0,
        windowInflatedBytes: 0,
        bits: 0,
        memberStart: true,
        sha256,
      });
    this.#chunks = [];
  }

  #closeFile(): void {
    const file = this.#file;
    if (file === undefined) return;
    const { entry, start, segments, covered, sparse } = file;
    if (covered !== entry.size) throw unusable(`the chunks of ${shown(entry)} are not all of it`);
    const data = { dataOffset: start, dataBytes: this.#length - start };
    this.#entries.add(memberOf(entry, { ...data, segments: sparse ? segments : undefined }));
    this.#file = undefined;
  }
}

function shown({ name }: ChunkTableEntry): string {
  return quoteName(Buffer.from(name).toString("latin1"));
}
