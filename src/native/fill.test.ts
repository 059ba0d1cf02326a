import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { deflateRawSync, gzipSync } from "node:zlib";
import { spanKinds } from "./blob.ts";
import { Engine, type FillStatus } from "./engine.ts";
import {
  Bench,
  blobOf,
  fetched,
  gzipMembersLayer,
  patterned,
  plainLayer,
  type TestLayer,
  zstdFramesLayer,
} from "./layer.test-kit.ts";

const engine = Engine.get();

async function fillAll(bench: Bench, layer: TestLayer): Promise<FillStatus[]> {
  const blob = bench.open(layer);
  const results = await engine.fill(blob, 0, layer.spans.length - 1, new Uint8Array(layer.compressed));
  await blob.release();
  return results.map((result) => result.status);
}

async function expectWhole(layer: TestLayer): Promise<void> {
  using bench = new Bench();
  expect(new Set(await fillAll(bench, layer))).toEqual(new Set(["present"]));
  expect(readFileSync(bench.path("layer.blob")).equals(blobOf(layer))).toBe(true);
}

/** Moves a deflate stream (without stored blocks) by some bits: `bits` low bits of the first byte are not its own. */
function shifted(stream: Uint8Array, bits: number): Buffer {
  const out = Buffer.alloc(stream.length + 1);
  for (let i = 0; i < stream.length; i++) {
    out[i]! |= (stream[i]! << bits) & 0xff;
    out[i + 1]! |= stream[i]! >> (8 - bits);
  }
  out[0]! |= (1 << bits) - 1;
  return out;
}

const text = (length: number): Buffer =>
  Buffer.from("the lazy mount reads what it needs; ".repeat(length / 36 + 1)).subarray(0, length);

test("fills plain spans", () => expectWhole(plainLayer(patterned(500_000), 70_000)));
test("fills gzip spans that begin at members", () =>
  expectWhole(gzipMembersLayer(patterned(500_000), 70_000)));
test("fills zstd frames", () => expectWhole(zstdFramesLayer(patterned(500_000), 70_000)));

test("fills a gzip span that begins at any bit inside a member, with a window before it", async () => {
  const window = text(32_768);
  const rest = text(40_000).reverse();
  const first = gzipSync(window);
  for (let bits = 0; bits < 8; bits++) {
    const middle = shifted(deflateRawSync(rest, { dictionary: window }), bits);
    await expectWhole(midMember(first, window, middle, rest, bits));
  }
});

test("a gzip span goes on after the end of its member with the next one", async () => {
  const window = text(32_768);
  const rest = text(40_000).reverse();
  const next = patterned(20_000);
  const trailer = Buffer.alloc(8);
  const middle = Buffer.concat([deflateRawSync(rest, { dictionary: window }), trailer, gzipSync(next)]);
  await expectWhole(midMember(gzipSync(window), window, middle, Buffer.concat([rest, next]), 0));
});

/** Two spans: a whole member, and one that begins inside a member after `window`. */
function midMember(first: Buffer, window: Buffer, second: Buffer, rest: Buffer, bits: number): TestLayer {
  const tar = Buffer.concat([window, rest]);
  return {
    kind: spanKinds.gzip,
    compressed: Buffer.concat([first, second]),
    tar,
    blobSize: Math.ceil(tar.length / 4096) * 4096,
    extents: [{ tarOffset: 0, blobOffset: 0, length: tar.length }],
    spans: [
      {
        compOffset: 0,
        compLength: first.length,
        tarOffset: 0,
        tarLength: window.length,
        blobOffset: 0,
        flags: 1,
      },
      {
        compOffset: first.length,
        compLength: second.length,
        tarOffset: window.length,
        tarLength: rest.length,
        blobOffset: window.length,
        window,
        bits,
      },
    ],
  };
}

test("a span of several gzip members is read through to its end", async () => {
  const tar = patterned(90_000);
  const compressed = Buffer.concat([0, 30_000, 60_000].map((at) => gzipSync(tar.subarray(at, at + 30_000))));
  await expectWhole({
    kind: spanKinds.gzip,
    compressed,
    tar,
    blobSize: 90_112,
    extents: [{ tarOffset: 0, blobOffset: 0, length: tar.length }],
    spans: [
      {
        compOffset: 0,
        compLength: compressed.length,
        tarOffset: 0,
        tarLength: tar.length,
        blobOffset: 0,
        flags: 1,
      },
    ],
  });
});

test("extents spread a span over blocks, and holes stay zero", async () => {
  const tar = patterned(40_000);
  const layer: TestLayer = {
    ...plainLayer(tar, 10_000),
    blobSize: 1 << 20,
    // Small files with tar headers between them, a file across two spans, a sparse file with a hole.
    extents: [
      { tarOffset: 512, blobOffset: 0, length: 100 },
      { tarOffset: 1536, blobOffset: 4096, length: 4096 },
      { tarOffset: 6144, blobOffset: 8192, length: 20_000 },
      { tarOffset: 27_000, blobOffset: 32_768, length: 500 },
      { tarOffset: 27_500, blobOffset: 34_000, length: 500 },
      { tarOffset: 30_720, blobOffset: 900_000, length: 1 },
    ],
    spans: [0, 8192, 28_672, 900_000].map((blobOffset, i) => ({
      compOffset: i * 10_000,
      compLength: 10_000,
      tarOffset: i * 10_000,
      tarLength: 10_000,
      blobOffset,
    })),
  };
  await expectWhole(layer);
});

test("a span without data for the blob needs no fetch", async () => {
  using bench = new Bench();
  const layer = {
    ...plainLayer(patterned(30_000), 10_000),
    extents: [{ tarOffset: 25_000, blobOffset: 0, length: 9 }],
  };
  const spans = layer.spans.map((span) => ({ ...span, blobOffset: 0 }));
  const blob = bench.open({ ...layer, spans });
  expect([blob.presentCount(), blob.nextMissing(0), blob.spansOf(0, 4096), blob.spansOf(4096, 4096)]).toEqual(
    [2, 2, { first: 2, last: 2 }, undefined],
  );
  await blob.release();
});

test("refuses a span whose digest differs and takes the right bytes afterwards", async () => {
  using bench = new Bench();
  const layer = gzipMembersLayer(patterned(100_000), 40_000);
  const blob = bench.open(layer);
  const wrong = fetched(layer, 1);
  wrong[100]! ^= 1;
  expect(await engine.fill(blob, 1, 1, wrong)).toEqual([{ span: 1, status: "digest_mismatch" }]);
  expect(blob.isPresent(1)).toBe(false);
  expect(await engine.fill(blob, 1, 1, fetched(layer, 1))).toEqual([{ span: 1, status: "present" }]);
  await blob.release();
});

test("one bad span does not spoil its neighbours", async () => {
  using bench = new Bench();
  const layer = plainLayer(patterned(100_000), 40_000);
  const blob = bench.open(layer);
  const bytes = new Uint8Array(layer.compressed);
  bytes[50_000]! ^= 1;
  const statuses = (await engine.fill(blob, 0, 2, bytes)).map((result) => result.status);
  expect(statuses).toEqual(["present", "digest_mismatch", "present"]);
  await blob.release();
});

test("refuses bytes that match the digest but not the length or the format", async () => {
  const tar = patterned(50_000);
  for (const [kind, compressed] of [
    [spanKinds.gzip, gzipSync(tar.subarray(1))],
    [spanKinds.gzip, Buffer.alloc(500, 7)],
    [spanKinds.gzip, gzipSync(tar).subarray(0, 20_000)],
    [spanKinds.zstdFrames, Buffer.from(Bun.zstdCompressSync(tar.subarray(1)))],
    [spanKinds.zstdFrames, Buffer.from(Bun.zstdCompressSync(Buffer.concat([tar, tar])))],
    [spanKinds.zstdFrames, Buffer.alloc(500, 7)],
  ] as const) {
    using bench = new Bench();
    const layer: TestLayer = {
      kind,
      compressed,
      tar,
      blobSize: 53_248,
      extents: [{ tarOffset: 0, blobOffset: 0, length: tar.length }],
      spans: [
        {
          compOffset: 0,
          compLength: compressed.length,
          tarOffset: 0,
          tarLength: tar.length,
          blobOffset: 0,
          flags: 1,
        },
      ],
    };
    expect(await fillAll(bench, layer)).toEqual(["inflate_error"]);
  }
});

test("refuses a window that does not inflate to its length", async () => {
  using bench = new Bench();
  const layer = gzipMembersLayer(patterned(20_000), 20_000);
  const span = { ...layer.spans[0]!, flags: 0, window: Buffer.alloc(1000, 1) };
  const damaged = { ...layer, spans: [span] };
  expect(await fillAll(bench, damaged)).toEqual(["inflate_error"]);
});

test("refuses too few bytes, unknown spans and released blobs", async () => {
  using bench = new Bench();
  const layer = plainLayer(patterned(100_000), 40_000);
  const blob = bench.open(layer);
  await expect(engine.fill(blob, 0, 1, fetched(layer, 0))).rejects.toThrow("EMSGSIZE");
  await expect(engine.fill(blob, 2, 3, fetched(layer, 2))).rejects.toThrow("ERANGE");
  await expect(engine.fill(blob, 1, 0, fetched(layer, 1))).rejects.toThrow("ERANGE");
  await blob.release();
  await expect(engine.fill(blob, 0, 0, fetched(layer, 0))).rejects.toThrow("released");
});

test("many fills at once all end", async () => {
  using bench = new Bench();
  const layer = zstdFramesLayer(patterned(2_000_000), 20_000);
  const blob = bench.open(layer);
  const fills = layer.spans.map((_, span) => engine.fill(blob, span, span, fetched(layer, span)));
  const again = layer.spans.map((_, span) => engine.fill(blob, span, span, fetched(layer, span)));
  await Promise.all([...fills, ...again]);
  expect(blob.complete).toBe(true);
  await blob.release();
  expect(readFileSync(bench.path("layer.blob")).equals(blobOf(layer))).toBe(true);
});
