import { afterEach, beforeEach, expect, test } from "bun:test";
import { copyFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { run } from "../std/spawn.ts";
import { LayerBlob } from "./blob.ts";
import { Engine } from "./engine.ts";
import {
  Bench,
  blobOf,
  encodeSpanFile,
  fetched,
  patterned,
  plainLayer,
  type TestLayer,
} from "./layer.test-kit.ts";

const layer = plainLayer(patterned(300_000), 65_536);
const layerFor = (seed: number): TestLayer => plainLayer(patterned(300_000, seed), 65_536);
const flagsAt = 12;

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => {
  bench[Symbol.dispose]();
});

async function fillSpans(blob: LayerBlob, of: TestLayer, first: number, last = first): Promise<void> {
  const results = await Engine.get().fill(blob, first, last, fetched(of, first, last));
  for (const result of results) expect(result.status).toBe("present");
}

test("knows a layer's spans and what is missing", async () => {
  const blob = bench.open(layer);
  expect([blob.sizeBytes, blob.spanCount, blob.presentCount(), blob.complete]).toEqual([
    303_104,
    5,
    0,
    false,
  ]);
  expect(blob.span(1)).toEqual({
    compOffset: 65_536,
    compLength: 65_536,
    tarOffset: 65_536,
    tarLength: 65_536,
    blobOffset: 65_536,
  });
  expect(() => blob.span(5)).toThrow("ERANGE");
  await fillSpans(blob, layer, 0, 1);
  expect([blob.isPresent(1), blob.isPresent(2), blob.nextMissing(0), blob.nextMissing(3)]).toEqual([
    true,
    false,
    2,
    3,
  ]);
  await blob.release();
});

test("a cache file whose spans are all present is the plain blob", async () => {
  const blob = bench.open(layer);
  await fillSpans(blob, layer, 0, 4);
  expect([blob.complete, blob.nextMissing(0)]).toEqual([true, -1]);
  expect(readFileSync(bench.path("layer.blob")).equals(blobOf(layer))).toBe(true);
  await blob.release();
});

test("spans are still present after a release and a new open", async () => {
  const first = bench.open(layer);
  await fillSpans(first, layer, 2);
  await first.release();
  expect(readFileSync(bench.path("layer.map"))[flagsAt]).toBe(1);
  const second = bench.open(layer);
  expect([second.isPresent(2), second.presentCount()]).toEqual([true, 1]);
  await second.release();
});

test("a bitmap made for another layer is discarded", async () => {
  const first = bench.open(layer);
  await fillSpans(first, layer, 2);
  await first.release();
  const second = bench.open(layerFor(2));
  expect(second.presentCount()).toBe(0);
  await second.release();
});

test("blobs of one cache path share what is present", async () => {
  const first = bench.open(layer);
  const second = bench.open(layer);
  await fillSpans(first, layer, 3);
  expect(second.isPresent(3)).toBe(true);
  await first.release();
  expect(second.isPresent(3)).toBe(true);
  expect(() => first.isPresent(3)).toThrow("released");
  await second.release();
});

test("a span file that is cut or overwritten while in use does no harm", async () => {
  const blob = bench.open(layer);
  writeFileSync(bench.path("layer.spans"), "");
  await fillSpans(blob, layer, 0, 4);
  expect(blob.complete).toBe(true);
  await blob.release();
});

test("one cache path cannot be used with two span files at once", async () => {
  const first = bench.open(layer);
  writeFileSync(bench.path("other.spans"), encodeSpanFile(layerFor(2)));
  const other = { ...bench.paths("layer"), spanPath: bench.path("other.spans") };
  expect(() => LayerBlob.open(other)).toThrow("another span file");
  await first.release();
});

test("another process that serves the cache file is not disturbed", async () => {
  const blob = bench.open(layer);
  const script = `import { LayerBlob } from ${JSON.stringify(import.meta.resolve("./blob.ts"))};
    try { LayerBlob.open(${JSON.stringify(bench.paths("layer"))}); } catch (error) { console.log(error.code); }`;
  const { stdout } = await run([process.execPath, "-e", script]);
  expect(stdout.trim()).toBe("EBUSY");
  await blob.release();
});

test("release may be called twice, and a deleted cache file is not shared with a new one", async () => {
  const blob = bench.open(layer);
  await fillSpans(blob, layer, 0, 4);
  rmSync(bench.path("layer.blob"));
  rmSync(bench.path("layer.map"));
  const fresh = bench.open(layer);
  expect([fresh.presentCount(), blob.presentCount()]).toEqual([0, 5]);
  await Promise.all([blob.release(), blob.release(), fresh.release()]);
});

function importable(of: TestLayer, blob = blobOf(of)) {
  writeFileSync(bench.path("layer.spans"), encodeSpanFile(of));
  writeFileSync(bench.path("made"), blob);
  return { ...bench.paths("layer"), sourcePath: bench.path("made") };
}

test("a whole blob is imported by a rename, and is complete for who opens it then and later", async () => {
  const paths = importable(layer);
  await LayerBlob.import(paths);
  expect(existsSync(paths.sourcePath)).toBe(false);
  const first = LayerBlob.open(paths);
  expect(first.complete).toBe(true);
  await first.release();
  expect(readFileSync(paths.mapPath)[flagsAt]).toBe(1);
  const second = LayerBlob.open(paths);
  expect(second.complete).toBe(true);
  expect(readFileSync(paths.cachePath).equals(blobOf(layer))).toBe(true);
  await second.release();
});

test("an import takes the place of what was there before", async () => {
  const before = bench.open(layer);
  await fillSpans(before, layer, 2);
  await before.release();
  const paths = importable(layer);
  await LayerBlob.import(paths);
  const after = LayerBlob.open(paths);
  expect(after.complete).toBe(true);
  await after.release();
});

test("an import that was interrupted before its rename leaves nothing that is believed", async () => {
  const paths = importable(layer);
  await LayerBlob.import(paths);
  // The map of an import, beside the file that was there before.
  const before = bench.paths("before");
  copyFileSync(paths.mapPath, before.mapPath);
  copyFileSync(paths.spanPath, before.spanPath);
  writeFileSync(before.cachePath, Buffer.alloc(layer.blobSize, 7));
  const blob = LayerBlob.open(before);
  expect([blob.presentCount(), blob.nextMissing(0)]).toEqual([0, 0]);
  await blob.release();
});

test("an import of a layer that is served, or of a file of another size, is refused and moves nothing", async () => {
  const served = bench.open(layer);
  await fillSpans(served, layer, 1);
  const paths = importable(layer);
  await expect(LayerBlob.import(paths)).rejects.toThrow("EBUSY");
  expect([served.presentCount(), served.isPresent(1)]).toEqual([1, true]);
  await served.release();
  const beyond = { ...plainLayer(patterned(10_000), 10_000) };
  const stray = blobOf(beyond);
  stray[12_000] = 1;
  writeFileSync(bench.path("stray.spans"), encodeSpanFile(beyond));
  writeFileSync(bench.path("stray"), stray);
  const strayPaths = { ...bench.paths("stray"), sourcePath: bench.path("stray") };
  await expect(LayerBlob.import(strayPaths)).rejects.toThrow("EILSEQ");
  writeFileSync(paths.sourcePath, blobOf(layer).subarray(1));
  await expect(LayerBlob.import(paths)).rejects.toThrow("EINVAL");
  expect(existsSync(paths.sourcePath)).toBe(true);
  const after = LayerBlob.open(paths);
  expect(after.presentCount()).toBe(1);
  await after.release();
});

test("a missing span file is named with its errno", () => {
  expect(() => LayerBlob.open(bench.paths("nowhere"))).toThrow("ENOENT");
});
