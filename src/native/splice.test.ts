import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { gzipSync, inflateRawSync } from "node:zlib";
import { spanKinds } from "./blob.ts";
import { Engine } from "./engine.ts";
import { Bench, blobOf, type TestLayer, type TestSpan } from "./layer.test-kit.ts";
import { PointScanner } from "./points.ts";

/** Words in an order that repeats itself only now and then: many deflate blocks, with windows that matter. */
function words(count: number): Buffer {
  let state = 7;
  const next = (bound: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % bound;
  };
  const known = Array.from({ length: 400 }, () => String.fromCharCode(...bytes(next, 3 + next(9))));
  return Buffer.from(Array.from({ length: count }, () => known[next(known.length)]).join(" "));
}

function bytes(next: (bound: number) => number, count: number): number[] {
  return Array.from({ length: count }, () => 97 + next(26));
}

/** A gzip layer cut at every block, as an index with the shortest spans there can be would cut it. */
function cutAtEveryBlock(tar: Buffer): TestLayer {
  const compressed = gzipSync(tar, { level: 6 });
  const spans: TestSpan[] = [];
  const output = new Uint8Array(tar.length + 1);
  const scanner = PointScanner.open("gzip", output);
  let start: Omit<TestSpan, "compLength" | "tarLength"> = {
    compOffset: 0,
    tarOffset: 0,
    blobOffset: 0,
    flags: 1,
  };
  let comp = 0;
  let done = 0;
  const cut = (): void => {
    const tarLength = done - start.tarOffset;
    if (tarLength > 0) spans.push({ ...start, compLength: comp - start.compOffset, tarLength });
  };
  for (;;) {
    const status = scanner.step(compressed.subarray(comp), output.length, true);
    comp += scanner.consumed;
    done += scanner.produced;
    if (status === "input") break;
    if (status !== "block") continue;
    cut();
    const { stored } = scanner.window();
    const shared = scanner.unusedBits > 0 ? 1 : 0;
    start = {
      compOffset: comp - shared,
      tarOffset: done,
      blobOffset: done,
      bits: shared === 0 ? 0 : 8 - scanner.unusedBits,
      ...(stored.length === 0 ? {} : { window: inflateRawSync(stored) }),
    };
  }
  cut();
  scanner.close();
  return {
    kind: spanKinds.gzip,
    compressed,
    tar,
    blobSize: Math.ceil(tar.length / 4096) * 4096,
    extents: [{ tarOffset: 0, blobOffset: 0, length: tar.length }],
    spans,
  };
}

test("spans that begin and end at any bit of a byte inflate to what they hold", async () => {
  const layer = cutAtEveryBlock(words(900_000));
  expect(new Set(layer.spans.map(({ bits }) => bits ?? 0)).size).toBe(8);
  using bench = new Bench();
  const blob = bench.open(layer);
  // One by one and from the last on: none may profit from what an earlier one left in a buffer.
  for (let span = layer.spans.length - 1; span >= 0; span -= 1) {
    const { compOffset, compLength } = blob.span(span);
    const part = new Uint8Array(layer.compressed.subarray(compOffset, compOffset + compLength));
    expect(await Engine.get().fill(blob, span, span, part)).toEqual([{ span, status: "present" }]);
  }
  await blob.release();
  expect(readFileSync(bench.path("layer.blob")).equals(blobOf(layer))).toBe(true);
});
