import { PointScanner } from "../native/points.ts";
import { type ChunkTable, unusable } from "./chunk-table.ts";
import { ChunkedFiles } from "./chunk-table-files.ts";
import { EntryCutter } from "./chunk-table-json.ts";
import { IndexError } from "./error.ts";
import { LayerEntries } from "./layer-entries.ts";
import type { LayerIndexFiles, LayerToIndex } from "./layer-index.ts";
import { scanFailure } from "./layer-scan.ts";
import { TocWriter } from "./layer-toc.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";
import { SpanFileWriter } from "./span-file.ts";
import { ExtentTable } from "./span-table.ts";
import { TarReader } from "./tar-reader.ts";
import { type IndexedLayer, spanFile } from "./types.ts";

const outputBytes = 1024 * 1024;
const estargzName = "stargz.index.json";

/**
 * Indexes a layer by the table of contents that it brings: the table's compressed bytes are pushed in, span file and table
 * of contents come out. The layer itself is not read; its chunks are verified when they are.
 *
 * Used like `LayerIndexing`, with the same errors; any of them means that the layer is to be read as a whole.
 */
export class ChunkTableIndexing {
  readonly #layer: LayerToIndex;
  readonly #table: ChunkTable;
  readonly #limits: IndexLimits;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  readonly #toc: TocWriter;
  readonly #spanFile: SpanFileWriter;
  readonly #extents: ExtentTable;
  readonly #entries: LayerEntries;
  readonly #files: ChunkedFiles;
  readonly #cutter: EntryCutter;
  readonly #output = new Uint8Array(outputBytes);
  readonly #scanner: PointScanner;
  /** eStargz: the table is a file of a tar. Where it lies there, and how far the tar was read. */
  readonly #tar: TarReader | undefined;
  #json: { readonly from: number; readonly to: number } | undefined;
  #inflated = 0;
  #consumed = 0;
  #ended = false;
  /** See `LayerIndexing`: a table has no contents of files. */
  readonly blobProblem = undefined;

  private constructor(
    layer: LayerToIndex,
    table: ChunkTable,
    toc: TocWriter,
    span: SpanFileWriter,
    limits: IndexLimits,
  ) {
    this.#layer = layer;
    this.#table = table;
    this.#limits = limits;
    this.#toc = toc;
    this.#spanFile = span;
    this.#extents = new ExtentTable(limits);
    this.#entries = new LayerEntries(limits, this.#extents, (entry) => {
      toc.add(entry);
      checkLimit(limits, "tocBytesMax", toc.sizeBytes, () => "the layer's table of contents");
    });
    this.#files = new ChunkedFiles(layer.size, table.offset, limits, this.#entries);
    this.#cutter = new EntryCutter(limits.paxBytesMax, (entry) => this.#files.add(entry));
    const zstd = table.format === "zstdChunked";
    this.#scanner = PointScanner.open(zstd ? "zstd" : "gzip", this.#output);
    this.#tar = zstd
      ? undefined
      : new TarReader(limits, ({ name, dataOffset, dataBytes }) => {
          if (name === estargzName) this.#json ??= { from: dataOffset, to: dataOffset + dataBytes };
        });
  }

  static create(
    layer: LayerToIndex,
    table: ChunkTable,
    out: LayerIndexFiles,
    limits: IndexLimits,
  ): ChunkTableIndexing {
    const toc = TocWriter.create(out.tocPath);
    try {
      return new ChunkTableIndexing(layer, table, toc, SpanFileWriter.create(out.spanPath), limits);
    } catch (error) {
      toc.close();
      throw error;
    }
  }

  /** Takes the next compressed bytes of the table, of any number. */
  push(chunk: Uint8Array): void {
    if (this.#table.format === "zstdChunked") this.#hasher.update(chunk);
    for (let at = 0; !this.#ended; ) {
      const status = this.#scanner.step(chunk.subarray(at), outputBytes, false);
      const { consumed, produced } = this.#scanner;
      at += consumed;
      this.#consumed += consumed;
      if (produced > 0) this.#inflate(this.#output.subarray(0, produced));
      if (status === "memberEnd" || status === "trailing") this.#ended = true;
      else if (status === "input") return;
      else if (status !== "output")
        throw scanFailure("table of contents of the", this.#consumed, status, this.#scanner.problem());
    }
  }

  /** Says that all bytes were pushed; writes and closes the files. */
  finish(): IndexedLayer {
    if (!this.#ended) throw unusable("it ends early");
    const digest = `sha256:${this.#hasher.digest("hex")}`;
    if (digest !== this.#table.digest)
      throw new IndexError(
        "digest_mismatch",
        `the table of contents of the layer ${this.#layer.digest} turned out to be ${digest}`,
        { next: "Convert the image again, or check what stands before the registry." },
      );
    this.#cutter.finish();
    const spans = this.#files.finish();
    this.#scanner.close();
    this.#toc.finish();
    const { zstdChunks, gzipChunks } = spanFile.kinds;
    const facts = { digest: this.#layer.digest, tarBytes: this.#files.chunkBytes };
    const written = this.#spanFile.finish(
      {
        kind: this.#table.format === "zstdChunked" ? zstdChunks : gzipChunks,
        compressedBytes: this.#layer.size,
        blobBytes: this.#entries.blobBytes,
        ...facts,
      },
      spans,
      this.#extents,
    );
    return {
      digest: this.#layer.digest,
      mediaType: this.#layer.mediaType,
      sizeBytes: this.#layer.size,
      tarSizeBytes: this.#files.chunkBytes,
      blobSizeBytes: this.#entries.blobBytes,
      entries: this.#toc.entries,
      spanSha256: written.sha256,
      spanSizeBytes: written.sizeBytes,
      tocDigest: this.#table.digest,
    };
  }

  /** Closes what is open; the files are then unusable unless `finish` returned. */
  close(): void {
    this.#scanner.close();
    this.#toc.close();
    this.#spanFile.close();
  }

  #inflate(bytes: Uint8Array): void {
    const start = this.#inflated;
    this.#inflated += bytes.length;
    checkLimit(
      this.#limits,
      "tocBytesMax",
      this.#inflated,
      () => "the table of contents that the layer brings",
    );
    if (this.#tar === undefined) {
      this.#cutter.push(bytes);
      return;
    }
    this.#tar.push(bytes);
    if (this.#json === undefined) return;
    const json = bytes.subarray(Math.max(0, this.#json.from - start), Math.max(0, this.#json.to - start));
    this.#hasher.update(json);
    this.#cutter.push(json);
  }
}
