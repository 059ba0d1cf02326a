import { expect } from "bun:test";
import { readFile } from "node:fs/promises";
import { constants, gunzipSync, inflateRawSync } from "node:zlib";
import { LayerEntries } from "./layer-entries.ts";
import { indexLayerStream, type LayerIndexFiles } from "./layer-index.ts";
import { openToc } from "./layer-toc.ts";
import { defaultIndexLimits, type IndexLimits } from "./limits.ts";
import { readSpanHeader, type SpanHeader } from "./span-file.ts";
import { TarReader } from "./tar-reader.ts";
import { type IndexedLayer, spanFile, type TocEntry } from "./types.ts";

export const ociTar = "application/vnd.oci.image.layer.v1.tar";

export function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/** The bytes in chunks of a size that fits no structure of theirs. */
export async function* chunksOf(bytes: Uint8Array, chunkBytes = 65_521): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

export interface IndexBytesOptions {
  readonly limits?: Partial<IndexLimits>;
  readonly mediaType?: string;
  readonly chunkBytes?: number;
}

/** Indexes bytes that are a layer of that digest. */
export function indexBytes(
  layer: Uint8Array,
  out: LayerIndexFiles,
  options: IndexBytesOptions = {},
): Promise<IndexedLayer> {
  return indexLayerStream(
    {
      digest: `sha256:${sha256(layer)}`,
      size: layer.length,
      mediaType: options.mediaType ?? `${ociTar}+gzip`,
    },
    chunksOf(layer, options.chunkBytes),
    out,
    { ...defaultIndexLimits, ...options.limits },
    new AbortController().signal,
  );
}

/** The code and message of what a promise is rejected with. */
export async function failureOf(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  try {
    await promise;
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return { code, message };
  }
  return { code: "none", message: "nothing was thrown" };
}

export interface ReadSpan {
  readonly compOffset: number;
  readonly compLength: number;
  readonly tarOffset: number;
  readonly tarLength: number;
  readonly blobOffset: number;
  readonly window: Uint8Array;
  readonly bits: number;
  readonly memberStart: boolean;
  readonly sha256: string;
}

export interface ReadSpanFile {
  readonly header: SpanHeader;
  readonly spans: readonly ReadSpan[];
  readonly extents: readonly { tarOffset: number; blobOffset: number; length: number }[];
}

/** Reads a span file by its description, field by field. */
export async function readSpanFile(path: string): Promise<ReadSpanFile> {
  const header = readSpanHeader(path);
  const bytes = await readFile(path);
  const number = (at: number): number => Number(bytes.readBigUInt64LE(at));
  const spans: ReadSpan[] = [];
  for (let index = 0; index < header.spanCount; index += 1) {
    const at = header.spansOffset + index * spanFile.spanBytes;
    const windowAt = header.windowsOffset + number(at + 40);
    const stored = bytes.subarray(windowAt, windowAt + bytes.readUInt32LE(at + 48));
    const window = stored.length === 0 ? new Uint8Array(0) : inflateRawSync(stored);
    expect(window.length).toBe(bytes.readUInt32LE(at + 52));
    spans.push({
      compOffset: number(at),
      compLength: number(at + 8),
      tarOffset: number(at + 16),
      tarLength: number(at + 24),
      blobOffset: number(at + 32),
      window,
      bits: bytes[at + 56] ?? 0,
      memberStart: ((bytes[at + 57] ?? 0) & 1) === 1,
      sha256: bytes.toString("hex", at + 64, at + 96),
    });
  }
  const packed = { bytes, at: header.extentsOffset };
  let [tarEnd, blobEnd] = [0, 0];
  const extents = Array.from({ length: header.extentCount }, () => {
    const [tarOffset, blobOffset] = [tarEnd + takePacked(packed), blobEnd + takePacked(packed)];
    const length = takePacked(packed);
    tarEnd = tarOffset + length;
    blobEnd = blobOffset + length;
    return { tarOffset, blobOffset, length };
  });
  expect(packed.at).toBe(header.extentsOffset + header.extentsBytes);
  return { header, spans, extents };
}

function takePacked(from: { readonly bytes: Buffer; at: number }): number {
  let value = 0;
  for (let factor = 1; ; factor *= 128) {
    const byte = from.bytes[from.at++] ?? 0;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return value;
  }
}

/** The tar bytes of a gzip span, from its compressed bytes and window alone. */
function inflateSpan(span: ReadSpan, compressed: Buffer): Buffer {
  const partial = { finishFlush: constants.Z_SYNC_FLUSH };
  if (span.memberStart) return gunzipSync(compressed, partial).subarray(0, span.tarLength);
  const lead = emptyBlocks(span.bits);
  const dictionary = span.window.length === 0 ? {} : { dictionary: span.window };
  const { buffer, engine } = inflateRawSync(withLead(lead, span.bits, compressed), {
    ...partial,
    ...dictionary,
    info: true,
  }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
  if (buffer.length >= span.tarLength) return buffer.subarray(0, span.tarLength);
  // The member ended inside of the span: 8 bytes of trailer, then the next one.
  const next = engine.bytesWritten - Math.floor(lead.length / 8) + 8;
  return Buffer.concat([buffer, gunzipSync(compressed.subarray(next), partial)]).subarray(0, span.tarLength);
}

/**
 * Deflate blocks that hold nothing and end `bits` bits into a byte, as text of 0 and 1 in stream order. They let an
 * inflater that can only begin at a whole byte come to a place inside of one, as Node's has no `inflatePrime`.
 */
function emptyBlocks(bits: number): string {
  const low = (value: number, width: number): string =>
    [...value.toString(2).padStart(width, "0")].reverse().join("");
  const fixed = `${low(0, 1)}${low(1, 2)}0000000`;
  // Dynamic codes: lengths of the code length codes (only 18 and 1 are used), 256 unused literals, the end, 2 distances.
  const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1];
  const lengths = order.map((symbol) => low(symbol === 18 || symbol === 1 ? 1 : 0, 3)).join("");
  const zeros = `1${low(138 - 11, 7)}1${low(118 - 11, 7)}`;
  const dynamic = `${low(0, 1)}${low(2, 2)}${low(0, 5)}${low(1, 5)}${low(14, 4)}${lengths}${zeros}0000`;
  let blocks = bits % 2 === 0 ? "" : dynamic;
  while (blocks.length % 8 !== bits) blocks += fixed;
  return blocks;
}

function withLead(lead: string, bits: number, compressed: Buffer): Buffer {
  const bytes = Buffer.alloc(Math.ceil(lead.length / 8));
  for (let at = 0; at < lead.length; at += 1) {
    if (lead[at] === "1") bytes[at >> 3] = (bytes[at >> 3] ?? 0) | (1 << (at & 7));
  }
  if (bits === 0) return Buffer.concat([bytes, compressed]);
  const last = bytes.length - 1;
  bytes[last] = (bytes[last] ?? 0) | ((compressed[0] ?? 0) & (0xff << bits));
  return Buffer.concat([bytes, compressed.subarray(1)]);
}

/** Checks every promise of `types.ts` on a layer's files, against its compressed and tar bytes. Returns the blob. */
export async function checkLayer(
  layer: Buffer,
  tar: Buffer,
  out: LayerIndexFiles,
  indexed: IndexedLayer,
): Promise<{ entries: TocEntry[]; blob: Buffer; file: ReadSpanFile }> {
  const file = await readSpanFile(out.spanPath);
  const { header, spans, extents } = file;
  const spanBytes = await readFile(out.spanPath);
  expect(indexed.spanSha256).toBe(sha256(spanBytes));
  expect(indexed.spanSizeBytes).toBe(spanBytes.length);
  expect(header.digest).toBe(`sha256:${sha256(layer)}`);
  expect([header.compressedBytes, header.tarBytes]).toEqual([layer.length, tar.length]);
  expect(header.blobBytes % 4096).toBe(0);
  expect([header.spansOffset % 8, header.extentsOffset % 8]).toEqual([0, 0]);

  let tarEnd = 0;
  for (const span of spans) {
    expect(span.tarOffset).toBe(tarEnd);
    tarEnd += span.tarLength;
    const expected = tar.subarray(span.tarOffset, tarEnd);
    const compressed = layer.subarray(span.compOffset, span.compOffset + span.compLength);
    expect(compressed.length).toBe(span.compLength);
    if (header.kind === spanFile.kinds.zstdStream) {
      expect([span.compOffset, span.compLength]).toEqual([0, layer.length]);
      expect(span.sha256).toBe(sha256(expected));
      continue;
    }
    expect(span.sha256).toBe(sha256(compressed));
    let inflated: Uint8Array = compressed;
    if (header.kind === spanFile.kinds.gzip) inflated = inflateSpan(span, compressed);
    if (header.kind === spanFile.kinds.zstdFrames) inflated = await inflateZstd(compressed);
    expect(expected.equals(inflated)).toBe(true);
  }
  expect(tarEnd).toBe(tar.length);

  const blob = Buffer.alloc(header.blobBytes);
  let last = { tar: 0, blob: 0 };
  for (const { tarOffset, blobOffset, length } of extents) {
    expect(length).toBeGreaterThan(0);
    expect(tarOffset >= last.tar && blobOffset >= last.blob).toBe(true);
    expect(tarOffset === last.tar && blobOffset === last.blob && last.tar > 0).toBe(false);
    last = { tar: tarOffset + length, blob: blobOffset + length };
    tar.copy(blob, blobOffset, tarOffset, tarOffset + length);
  }
  expect(last.blob).toBeLessThanOrEqual(blob.length);
  for (const span of spans) {
    const next = extents.find((extent) => extent.tarOffset + extent.length > span.tarOffset);
    const first =
      next === undefined ? blob.length : next.blobOffset + Math.max(0, span.tarOffset - next.tarOffset);
    expect(span.blobOffset).toBe(first);
  }
  const toc = openToc(out.tocPath);
  expect(toc.entries).toBe(indexed.entries);
  return { entries: [...toc], blob, file };
}

async function inflateZstd(bytes: Uint8Array): Promise<Buffer> {
  const child = Bun.spawn(["zstd", "-dc"], { stdin: Buffer.from(bytes), stdout: "pipe", stderr: "ignore" });
  return Buffer.from(await new Response(child.stdout).arrayBuffer());
}

/** The entries and extents of a tar, pushed in chunks of a size that fits no block. */
export function readTar(
  tar: Uint8Array,
  limits: Partial<IndexLimits> = {},
  chunkBytes = 1000,
): { entries: TocEntry[]; extents: [number, number, number][]; blobBytes: number } {
  const all = { ...defaultIndexLimits, ...limits };
  const entries: TocEntry[] = [];
  const extents: [number, number, number][] = [];
  const sink = {
    addExtent: (from: number, to: number, length: number) => void extents.push([from, to, length]),
  };
  const layer = new LayerEntries(all, sink, (entry) => void entries.push(entry));
  const reader = new TarReader(all, (member) => layer.add(member));
  for (let at = 0; at < tar.length; at += chunkBytes) reader.push(tar.subarray(at, at + chunkBytes));
  reader.finish();
  return { entries, extents, blobBytes: layer.blobBytes };
}
