import { isDigest } from "../reference/digest.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { IndexError } from "./error.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";

/**
 * The table of contents that a layer itself brings, as the manifest vouches for it. Written by those who convert images
 * for lazy pulling: eStargz (containerd's stargz-snapshotter, `docs/estargz.md`) and zstd:chunked (containers/storage,
 * `docs/containers-storage-zstd-chunked.md`).
 */
export interface ChunkTable {
  readonly format: "estargz" | "zstdChunked";
  /** `sha256:…` in the manifest: of the JSON (eStargz) or of the compressed JSON (zstd:chunked). */
  readonly digest: string;
  /** Where the compressed table lies in the layer, in bytes. The contents of files end before it. */
  readonly offset: number;
  readonly length: number;
}

/** A table that was found, and its compressed bytes, which nobody has verified. */
export interface FoundChunkTable {
  readonly table: ChunkTable;
  readonly bytes: AsyncIterable<Uint8Array>;
}

const estargzDigest = "containerd.io/snapshot/stargz/toc.digest";
/** The second is what containers/storage wrote until 2022, as Debian's skopeo still does. */
const zstdPrefixes = ["io.github.containers.zstd-chunked.manifest", "io.containers.zstd-chunked.manifest"];
/** The only kind of table in a zstd:chunked position. */
const zstdTableType = 1;

/** An empty gzip member whose extra field says where the table begins (`docs/estargz.md`, "Footer"). */
const footerBytes = 51;
/** Header with an extra field of 26 bytes, in it the subfield "SG" of 22; then an empty stored block and the trailer. */
const footerPattern = /^\x1f\x8b\x08\x04[\0-\xff]{6}\x1a\0SG\x16\0([0-9a-f]{16})STARGZ\x01\0\0\xff\xff\0{8}$/;
/** Read with the footer: holds the whole table of most layers, so that one request is enough. */
const tailBytes = 512 * 1024;
const readBytes = 8 * 1024 * 1024;

/** Whether a layer's descriptor names a table of contents: the digest that the manifest has of it. */
export function chunkTableDigest(layer: Descriptor): string | undefined {
  const digest = zstdAnnotation(layer, "checksum") ?? layer.annotations?.[estargzDigest];
  return digest !== undefined && isDigest(digest) ? digest : undefined;
}

/**
 * Finds the table of a layer for which {@link chunkTableDigest} names one, by ranged reads.
 *
 * @throws IndexError `bad_layer` when there is none after all, `limit_exceeded`; what the source throws (RegistryError)
 */
export async function findChunkTable(
  layer: Descriptor,
  source: BlobSource,
  limits: IndexLimits,
  signal: AbortSignal,
): Promise<FoundChunkTable> {
  const digest = chunkTableDigest(layer) ?? "";
  const position = zstdAnnotation(layer, "checksum") === undefined ? undefined : zstdTable(layer, digest);
  if (position !== undefined) {
    const table = checked(position, layer, limits);
    return { table, bytes: read(layer, table.offset, table.offset + table.length, source, signal) };
  }
  const from = Math.max(0, layer.size - tailBytes);
  const tail = layer.size === 0 ? new Uint8Array(0) : await source.read(layer, from, layer.size, signal);
  const table = checked(estargzTable(layer, digest, tail), layer, limits);
  return { table, bytes: withTail(layer, table, tail, source, signal) };
}

function zstdAnnotation({ annotations }: Descriptor, what: "checksum" | "position"): string | undefined {
  return zstdPrefixes
    .map((prefix) => annotations?.[`${prefix}-${what}`])
    .find((value) => value !== undefined);
}

function zstdTable(layer: Descriptor, digest: string): ChunkTable {
  const numbers = (zstdAnnotation(layer, "position") ?? "").split(":");
  if (numbers.length !== 4 || !numbers.every((text) => /^\d{1,15}$/.test(text)))
    throw unusable("its position in the manifest cannot be read");
  const [offset = 0, length = 0, , type] = numbers.map(Number);
  if (type !== zstdTableType) throw unusable(`it is of the unknown type ${type}`);
  return { format: "zstdChunked", digest, offset, length };
}

function estargzTable(layer: Descriptor, digest: string, tail: Uint8Array): ChunkTable {
  const footer = Buffer.from(tail).subarray(-footerBytes).toString("latin1");
  const match = footerPattern.exec(footer);
  if (match === null) throw unusable("the layer has no eStargz footer");
  const offset = Number.parseInt(match[1] ?? "", 16);
  return { format: "estargz", digest, offset, length: layer.size - footerBytes - offset };
}

function checked(table: ChunkTable, layer: Descriptor, limits: IndexLimits): ChunkTable {
  const { offset, length } = table;
  if (!Number.isSafeInteger(offset) || length <= 0 || offset + length > layer.size)
    throw unusable("it lies outside of the layer");
  // What it inflates to is bounded by the same limit, later.
  checkLimit(limits, "tocBytesMax", length, () => "the table of contents that the layer brings");
  return table;
}

async function* withTail(
  layer: Descriptor,
  { offset, length }: ChunkTable,
  tail: Uint8Array,
  source: BlobSource,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  const tailFrom = layer.size - tail.length;
  if (offset < tailFrom) yield* read(layer, offset, Math.min(tailFrom, offset + length), source, signal);
  yield tail.subarray(Math.max(0, offset - tailFrom), offset + length - tailFrom);
}

async function* read(
  layer: Descriptor,
  start: number,
  end: number,
  source: BlobSource,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = start; at < end; at += readBytes)
    yield await source.read(layer, at, Math.min(end, at + readBytes), signal);
}

/** A table that cannot be used; the layer may still be read as what it is without one. */
export function unusable(why: string): IndexError {
  return new IndexError("bad_layer", `the layer's own table of contents cannot be used: ${why}`, {
    next: "Convert the image again.",
  });
}
