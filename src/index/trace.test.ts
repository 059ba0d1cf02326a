import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeTrace, encodeTrace, mergeTrace, type TracedRange, traceLimits } from "./trace.ts";
import { TraceStore } from "./trace-store.ts";

const layer = `sha256:${"a".repeat(64)}`;
const other = `sha256:${"b".repeat(64)}`;
const at = new Date("2026-01-01T00:00:00Z");

function range(number: number, of = layer, compressedBytes = 1000): TracedRange {
  return { layer: of, tarOffset: number * 2000, tarLength: 2000, compressedBytes };
}

function start(numbers: readonly number[], seenLayers: readonly string[] = [layer]) {
  return { ranges: numbers.map((number) => range(number)), seenLayers };
}

const numbersOf = (trace: { readonly ranges: readonly TracedRange[] }) =>
  trace.ranges.map(({ tarOffset }) => tarOffset / 2000);

test("a trace has the latest start's order and keeps for a while what that did not read", () => {
  let trace = mergeTrace(undefined, start([5, 1, 3]), "python3", at);
  trace = mergeTrace(trace, start([1, 7, 5]), "python3", at);
  expect(numbersOf(trace)).toEqual([1, 7, 5, 3]);
  trace = mergeTrace(trace, start([1, 5]), "python3", at);
  expect(numbersOf(trace)).toEqual([1, 5, 7, 3]);
  trace = mergeTrace(trace, start([1, 5]), "python3", at);
  expect(numbersOf(trace)).toEqual([1, 5, 7]);
  expect(trace.starts).toBe(4);
});

test("what a start could not have shown is not counted as unread", () => {
  let trace = mergeTrace(
    undefined,
    { ranges: [range(1), range(2, other)], seenLayers: [layer, other] },
    "a",
    at,
  );
  for (let starts = 0; starts < 10; starts += 1) trace = mergeTrace(trace, start([4]), "a", at);
  expect(trace.ranges).toMatchObject([range(4), range(2, other)]);
});

test("a trace is bounded in ranges and in bytes", () => {
  const many = Array.from({ length: traceLimits.ranges + 10 }, (_, number) => number);
  expect(mergeTrace(undefined, start(many), "a", at).ranges).toHaveLength(traceLimits.ranges);
  const half = traceLimits.compressedBytes / 2;
  const ranges = [range(1, layer, half), range(2, layer, half), range(3, layer, half)];
  expect(numbersOf(mergeTrace(undefined, { ranges, seenLayers: [layer] }, "a", at))).toEqual([1, 2]);
  const largest = mergeTrace(undefined, start(many.map((number) => number * 1e9)), "a", at);
  expect(encodeTrace(largest).length).toBeLessThan(traceLimits.fileBytes);
});

test("a text that is no trace counts as none", () => {
  const trace = mergeTrace(undefined, { ranges: [range(1), range(2, other)], seenLayers: [] }, "python3", at);
  const text = encodeTrace(trace);
  expect(decodeTrace(text)).toEqual(trace);
  for (const damaged of [
    "",
    "[]",
    text.slice(0, -3),
    text.replace('"version":1', '"version":2'),
    text.replace(layer, "sha256:no"),
    text.replace("[0,2000", "[7,2000"),
    text.replace("[0,2000", "[0,-2000"),
    text.replace("[0,2000", "[0,1e300"),
  ])
    expect([damaged, decodeTrace(damaged)]).toEqual([damaged, undefined]);
});

let dir: string;
let store: TraceStore;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-trace-"));
  store = new TraceStore(join(dir, "traces"));
});

afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

const key = { workspace: "w", manifestDigest: other, argv: ["python3", "-c", "import numpy"] };

test("traces are kept by workspace, image and command", async () => {
  await store.record(key, start([1]));
  await store.record({ ...key, argv: [] }, start([2]));
  await store.record({ ...key, workspace: "v" }, start([3]));
  expect(numbersOf((await store.read(key))!)).toEqual([1]);
  expect(await store.read({ ...key, manifestDigest: layer })).toBeUndefined();
  expect((await store.list("w", other)).map(({ trace }) => trace.program).sort()).toEqual(["", "python3"]);
  await store.remove(other, "w");
  expect(await store.read(key)).toBeUndefined();
  expect(numbersOf((await store.read({ ...key, workspace: "v" }))!)).toEqual([3]);
  await store.remove(other);
  expect(await readdir(join(dir, "traces"))).toEqual([]);
});

test("a damaged trace is replaced by the next start", async () => {
  await store.record(key, start([1]));
  const [folder = ""] = await readdir(join(dir, "traces"));
  const [file = ""] = await readdir(join(dir, "traces", folder));
  const path = join(dir, "traces", folder, file);
  await writeFile(path, (await readFile(path, "utf8")).slice(5));
  expect(await store.read(key)).toBeUndefined();
  expect((await store.record(key, start([2]))).starts).toBe(1);
  await writeFile(path, "x".repeat(traceLimits.fileBytes + 1));
  expect(await store.read(key)).toBeUndefined();
});

test("a workspace keeps so many traces of an image and no more", async () => {
  for (let number = 0; number < 70; number += 1)
    await store.record({ ...key, argv: [String(number)] }, start([number]));
  expect(await store.list("w", other)).toHaveLength(64);
  expect(await store.read({ ...key, argv: ["69"] })).toBeDefined();
});

test("the traces of a workspace go, of every image, and no other's", async () => {
  const images = [layer, other];
  for (const manifestDigest of images) {
    await store.record({ ...key, manifestDigest }, start([1]));
    await store.record({ ...key, manifestDigest, workspace: "v" }, start([2]));
  }
  await store.removeWorkspace("w");
  for (const digest of images) {
    expect(await store.list("w", digest)).toEqual([]);
    expect(await store.list("v", digest)).toHaveLength(1);
  }
  await new TraceStore(join(dir, "never-made")).removeWorkspace("w");
});
