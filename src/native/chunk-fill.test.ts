import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { spanKinds } from "./blob.ts";
import { Engine, type FillStatus } from "./engine.ts";
import { Bench, blobOf, patterned, type TestLayer, type TestSpan } from "./layer.test-kit.ts";

const chunkBytes = [5000, 1, 4096, 70_000, 300];

/** A member for each group of chunks, with bytes after the chunks that belong to none, as headers of a tar do. */
function chunkLayer(
  kind: number,
  groups: readonly number[][],
  pack: (bytes: Buffer) => Uint8Array,
): TestLayer {
  const tar = patterned(
    groups.flat().reduce((sum, length) => sum + length, 0),
    5,
  );
  const spans: TestSpan[] = [];
  const packed: Uint8Array[] = [];
  let [compOffset, tarOffset] = [0, 0];
  for (const group of groups) {
    const length = group.reduce((sum, chunk) => sum + chunk, 0);
    const bytes = pack(Buffer.concat([tar.subarray(tarOffset, tarOffset + length), patterned(1500, 77)]));
    let before = 0;
    for (const tarLength of group) {
      spans.push({
        compOffset,
        compLength: bytes.length,
        tarOffset,
        tarLength,
        blobOffset: tarOffset,
        before,
      });
      before += tarLength;
      tarOffset += tarLength;
    }
    packed.push(bytes);
    compOffset += bytes.length;
  }
  return {
    kind,
    compressed: Buffer.concat(packed),
    tar,
    blobSize: Math.ceil(tar.length / 4096) * 4096,
    spans,
    extents: [{ tarOffset: 0, blobOffset: 0, length: tar.length }],
  };
}

async function fillAll(bench: Bench, layer: TestLayer, bytes: Uint8Array): Promise<FillStatus[]> {
  const blob = bench.open(layer);
  const results = await Engine.get().fill(blob, 0, layer.spans.length - 1, bytes);
  await blob.release();
  return results.map(({ status }) => status);
}

/** zstd without the content's size in its frame header, as writers that stream make it. */
function zstdStreamed(bytes: Buffer): Uint8Array {
  const { stdout } = Bun.spawnSync(["zstd", "-q", "-c", "--no-content-size"], { stdin: bytes });
  return new Uint8Array(stdout);
}

const packs: readonly (readonly [string, number, (bytes: Buffer) => Uint8Array])[] = [
  ["gzip", spanKinds.gzipChunks, (bytes) => gzipSync(bytes)],
  ["zstd", spanKinds.zstdChunks, (bytes) => Bun.zstdCompressSync(bytes)],
  ["streamed zstd", spanKinds.zstdChunks, zstdStreamed],
];

for (const [name, kind, pack] of packs) {
  test(`fills ${name} chunks, each in its member or several in one, and leaves out what follows them`, async () => {
    for (const groups of [
      chunkBytes.map((length) => [length]),
      [
        [5000, 1],
        [4096, 70_000, 300],
      ],
    ]) {
      using bench = new Bench();
      const layer = chunkLayer(kind, groups, pack);
      expect(new Set(await fillAll(bench, layer, new Uint8Array(layer.compressed)))).toEqual(
        new Set(["present"]),
      );
      expect(readFileSync(bench.path("layer.blob")).equals(blobOf(layer))).toBe(true);
    }
  });

  test(`refuses ${name} chunks whose bytes were changed, and those alone`, async () => {
    using bench = new Bench();
    const layer = chunkLayer(
      kind,
      chunkBytes.map((length) => [length]),
      pack,
    );
    const bytes = new Uint8Array(layer.compressed);
    const damaged = layer.spans[3]!;
    for (let at = 0; at < 40; at += 1) bytes[damaged.compOffset + 20 + at]! ^= 0x5a;
    const statuses = await fillAll(bench, layer, bytes);
    expect(statuses).toEqual(["present", "present", "present", "digest_mismatch", "present"]);
  });

  test(`refuses a ${name} chunk that says more bytes than come out`, async () => {
    using bench = new Bench();
    const layer = chunkLayer(kind, [[100_000]], (bytes) => pack(bytes.subarray(0, 99_999)));
    expect(await fillAll(bench, layer, new Uint8Array(layer.compressed))).toEqual(["digest_mismatch"]);
  });

  test(`refuses ${name} chunks that are another layer's, though they inflate`, async () => {
    using bench = new Bench();
    const layer = chunkLayer(kind, [[5000]], (bytes) => pack(Buffer.from(bytes).fill(7, 4999)));
    expect(await fillAll(bench, layer, new Uint8Array(layer.compressed))).toEqual(["digest_mismatch"]);
  });
}
