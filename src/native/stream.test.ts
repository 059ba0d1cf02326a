import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { Engine } from "./engine.ts";
import type { NativeError } from "./error.ts";
import {
  Bench,
  blobOf,
  gzipMembersLayer,
  patterned,
  plainLayer,
  type TestLayer,
  zstdFramesLayer,
  zstdStreamLayer,
} from "./layer.test-kit.ts";

const engine = Engine.get();

/** Streams a layer in pieces of one size; returns the error's code, or undefined. */
async function streamAll(
  bench: Bench,
  layer: TestLayer,
  bytes: Uint8Array,
  pieceBytes: number,
): Promise<string | undefined> {
  const blob = bench.open(layer);
  const stream = engine.streamOpen(blob);
  try {
    for (let at = 0; at < bytes.length; at += pieceBytes)
      await stream.push(new Uint8Array(bytes.slice(at, at + pieceBytes)));
    await stream.end();
    return undefined;
  } catch (error) {
    return (error as NativeError).code;
  } finally {
    stream.close();
    await blob.release();
  }
}

const layers: Record<string, TestLayer> = {
  "a zstd layer in one frame": zstdStreamLayer(patterned(700_000), 100_000),
  "a plain layer": plainLayer(patterned(700_000), 100_000),
  "a gzip layer": gzipMembersLayer(patterned(700_000), 100_000),
  "a zstd layer in frames": zstdFramesLayer(patterned(700_000), 100_000),
};

for (const [what, layer] of Object.entries(layers)) {
  test(`${what} is filled by one pass, whatever the size of the pieces`, async () => {
    for (const pieceBytes of [1000, 65_536, 10_000_000]) {
      using bench = new Bench();
      expect(await streamAll(bench, layer, layer.compressed, pieceBytes)).toBeUndefined();
      expect(readFileSync(bench.path("layer.blob")).equals(blobOf(layer))).toBe(true);
    }
  });

  test(`${what} that ends too early is refused`, async () => {
    using bench = new Bench();
    const cut = layer.compressed.subarray(0, layer.compressed.length >> 1);
    expect(await streamAll(bench, layer, cut, 10_000)).toBe("TRUNCATED");
  });
}

test("a span of another content is refused before anybody sees it", async () => {
  using bench = new Bench();
  const layer = zstdStreamLayer(patterned(700_000), 100_000);
  const other = Buffer.from(layer.tar);
  other[350_000]! ^= 1;
  const code = await streamAll(bench, layer, Bun.zstdCompressSync(other), 10_000);
  expect(code).toBe("DIGEST_MISMATCH");
  const blob = bench.open(layer);
  expect([blob.presentCount(), blob.isPresent(2), blob.isPresent(3)]).toEqual([3, true, false]);
  await blob.release();
});

test("what is not zstd is refused", async () => {
  using bench = new Bench();
  const layer = zstdStreamLayer(patterned(700_000), 100_000);
  expect(await streamAll(bench, layer, patterned(10_000), 1000)).toBe("BAD_LAYER");
});

test("spans that are present already are passed over", async () => {
  using bench = new Bench();
  const layer = zstdStreamLayer(patterned(700_000), 100_000);
  const half = layer.compressed.subarray(0, layer.compressed.length >> 1);
  expect(await streamAll(bench, layer, half, 10_000)).toBe("TRUNCATED");
  expect(await streamAll(bench, layer, layer.compressed, 10_000)).toBeUndefined();
  expect(readFileSync(bench.path("layer.blob")).equals(blobOf(layer))).toBe(true);
});

test("a stream that is closed while it works frees itself", async () => {
  using bench = new Bench();
  const layer = zstdStreamLayer(patterned(700_000), 100_000);
  const blob = bench.open(layer);
  const stream = engine.streamOpen(blob);
  const pushed = stream.push(new Uint8Array(layer.compressed));
  stream.close();
  stream.close();
  await pushed;
  await blob.release();
});
