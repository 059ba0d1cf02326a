/** Layers and their span files made by hand, so that the engine is tested without the indexer. */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync, gzipSync } from "node:zlib";
import { LayerBlob, spanKinds } from "./blob.ts";
import { Engine } from "./engine.ts";

export interface TestSpan {
  compOffset: number;
  compLength: number;
  tarOffset: number;
  tarLength: number;
  blobOffset: number;
  window?: Buffer;
  bits?: number;
  flags?: number;
  /** Of a chunk: bytes of its member's output before it. */
  before?: number;
  sha256?: Buffer;
}

export interface TestExtent {
  tarOffset: number;
  blobOffset: number;
  length: number;
}

export interface TestLayer {
  readonly kind: number;
  readonly compressed: Buffer;
  readonly tar: Buffer;
  readonly blobSize: number;
  readonly spans: readonly TestSpan[];
  readonly extents: readonly TestExtent[];
}

const [headerBytes, spanBytes, extentBytes] = [128, 96, 24];

const sha256 = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();

/** Bytes that differ everywhere and compress a little. */
export function patterned(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    if (i % 3 === 0) state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** Writes a layer's span file as src/index/types.ts describes it. */
export function encodeSpanFile(layer: TestLayer): Buffer {
  const stored = layer.spans.map((span) =>
    span.window === undefined ? undefined : deflateRawSync(span.window),
  );
  const windows = Buffer.concat(stored.filter((window) => window !== undefined));
  const spansAt = headerBytes;
  const extentsAt = spansAt + layer.spans.length * spanBytes;
  const windowsAt = extentsAt + layer.extents.length * extentBytes;
  const out = Buffer.alloc(windowsAt + windows.length);
  const numbers = (at: number, values: readonly number[]) =>
    void values.forEach((value, i) => void out.writeBigUInt64LE(BigInt(value), at + 8 * i));
  out.write("OCISPAN1");
  out.writeUInt32LE(1, 8);
  out.writeUInt32LE(layer.kind, 12);
  numbers(16, [layer.compressed.length, layer.tar.length, layer.blobSize]);
  out.writeUInt32LE(layer.spans.length, 40);
  out.writeUInt32LE(layer.extents.length, 44);
  numbers(48, [spansAt, extentsAt, windowsAt, windows.length]);
  sha256(layer.compressed).copy(out, 80);
  let windowAt = 0;
  layer.spans.forEach((span, i) => {
    const at = spansAt + i * spanBytes;
    const window = stored[i];
    numbers(at, [
      span.compOffset,
      span.compLength,
      span.tarOffset,
      span.tarLength,
      span.blobOffset,
      span.before ?? windowAt,
    ]);
    out.writeUInt32LE(window?.length ?? 0, at + 48);
    out.writeUInt32LE(span.window?.length ?? 0, at + 52);
    out[at + 56] = span.bits ?? 0;
    out[at + 57] = span.flags ?? 0;
    (span.sha256 ?? digestOf(layer, span)).copy(out, at + 64);
    windowAt += window?.length ?? 0;
  });
  layer.extents.forEach((extent, i) => {
    numbers(extentsAt + i * extentBytes, [extent.tarOffset, extent.blobOffset, extent.length]);
  });
  windows.copy(out, windowsAt);
  return out;
}

function digestOf(layer: TestLayer, span: TestSpan): Buffer {
  return layer.kind >= spanKinds.zstdStream
    ? sha256(layer.tar.subarray(span.tarOffset, span.tarOffset + span.tarLength))
    : sha256(layer.compressed.subarray(span.compOffset, span.compOffset + span.compLength));
}

const wholeBlocks = (length: number): number => Math.ceil(length / 4096) * 4096;

/** What the blob must hold when all is present. */
export function blobOf(layer: TestLayer): Buffer {
  const blob = Buffer.alloc(layer.blobSize);
  for (const e of layer.extents) layer.tar.copy(blob, e.blobOffset, e.tarOffset, e.tarOffset + e.length);
  return blob;
}

/** Cuts tar bytes into spans of one size, each packed by `pack` on its own, with one extent over all. */
export function layerOf(
  kind: number,
  tar: Buffer,
  spanSize: number,
  pack: (piece: Buffer) => Uint8Array,
  flags = 0,
): TestLayer {
  const spans: TestSpan[] = [];
  const packed: Uint8Array[] = [];
  let compOffset = 0;
  for (let at = 0; at < tar.length; at += spanSize) {
    const piece = tar.subarray(at, Math.min(tar.length, at + spanSize));
    const bytes = pack(piece);
    spans.push({
      compOffset,
      compLength: bytes.length,
      tarOffset: at,
      tarLength: piece.length,
      blobOffset: at,
      flags,
    });
    packed.push(bytes);
    compOffset += bytes.length;
  }
  return {
    kind,
    compressed: Buffer.concat(packed),
    tar,
    blobSize: wholeBlocks(tar.length),
    spans,
    extents: tar.length === 0 ? [] : [{ tarOffset: 0, blobOffset: 0, length: tar.length }],
  };
}

export const plainLayer = (tar: Buffer, spanSize: number): TestLayer =>
  layerOf(spanKinds.plain, tar, spanSize, (piece) => piece);

export const gzipMembersLayer = (tar: Buffer, spanSize: number): TestLayer =>
  layerOf(spanKinds.gzip, tar, spanSize, (piece) => gzipSync(piece), 1);

export const zstdFramesLayer = (tar: Buffer, spanSize: number): TestLayer =>
  layerOf(spanKinds.zstdFrames, tar, spanSize, (piece) => Bun.zstdCompressSync(piece), 1);

/** One zstd frame over all: spans are pieces of the tar stream. */
export function zstdStreamLayer(tar: Buffer, spanSize: number): TestLayer {
  const compressed = Buffer.from(Bun.zstdCompressSync(tar));
  const cut = plainLayer(tar, spanSize);
  return {
    ...cut,
    kind: spanKinds.zstdStream,
    compressed,
    spans: cut.spans.map((span) => ({ ...span, compOffset: 0, compLength: compressed.length })),
  };
}

/** A folder with a layer's files, gone at the end of the test. */
export class Bench implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), "oci-native-"));

  path(name: string): string {
    return join(this.dir, name);
  }

  folder(name: string): string {
    mkdirSync(this.path(name), { recursive: true });
    return this.path(name);
  }

  paths(name: string) {
    return {
      spanPath: this.path(`${name}.spans`),
      cachePath: this.path(`${name}.blob`),
      mapPath: this.path(`${name}.map`),
    };
  }

  open(layer: TestLayer, name = "layer"): LayerBlob {
    writeFileSync(this.path(`${name}.spans`), encodeSpanFile(layer));
    return LayerBlob.open(this.paths(name));
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** The compressed bytes of a run of spans, as a registry would send them. */
export function fetched(layer: TestLayer, first: number, last = first): Uint8Array {
  const end = layer.spans[last]!;
  return new Uint8Array(
    layer.compressed.subarray(layer.spans[first]!.compOffset, end.compOffset + end.compLength),
  );
}

/** Answers every miss at once from the layers at hand; returns the list of the spans asked for. */
export function serveMisses(layers: ReadonlyMap<LayerBlob, TestLayer>): number[] {
  const asked: number[] = [];
  const engine = Engine.get();
  engine.onMiss((blob, span) => {
    asked.push(span);
    void engine.fill(blob, span, span, fetched(layers.get(blob)!, span));
  });
  return asked;
}
