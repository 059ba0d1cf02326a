import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { mergeTrace, type StartTrace, type Trace } from "../index/trace.ts";
import {
  acquire,
  contentAt,
  contentOf,
  MiB,
  noise,
  type TestCompression,
  type TestImage,
  TestRoom,
  until,
} from "./mount.test-kit.ts";

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

const names = ["a", "b", "c", "d", "e", "f"] as const;

/** Two layers of files whose size is that of several spans. */
async function makeImage(compression: TestCompression = "gzip"): Promise<TestImage> {
  const files = (of: readonly string[]) => Object.fromEntries(of.map((name) => [name, noise(5 * MiB)]));
  return await room.image([files(names.slice(0, 4)), files(names.slice(4))], compression);
}

/** What a start that reads these files touches, recorded on a node of its own. */
async function record(made: TestImage, files: readonly string[], state: string): Promise<StartTrace> {
  const mounts = await room.mounts({
    stateDir: join(room.dir, state),
    cacheDir: join(room.dir, `${state}-c`),
  });
  const image = await acquire(mounts, made, { takeNotes: true });
  for (const file of files) await contentAt(join(image.root, file));
  const start = image.readSoFar();
  await image.release();
  await mounts.close();
  made.source.reads.length = 0;
  return start!;
}

const traceOf = (start: StartTrace): Trace => mergeTrace(undefined, start, "test", new Date());

function compressedBytesOf({ ranges }: StartTrace): number {
  return ranges.reduce((sum, { compressedBytes }) => sum + compressedBytes, 0);
}

test("a start's reads are noted in order over its layers, and only for who opened the mount", async () => {
  const made = await makeImage();
  const [first, second] = made.opened.layers.map(({ digest }) => digest);
  const mounts = await room.mounts();
  const image = await acquire(mounts, made, { takeNotes: true });
  const joined = await acquire(mounts, made, { takeNotes: true });
  for (const file of ["e", "b"]) await contentAt(join(image.root, file));
  const { ranges = [], seenLayers } = image.readSoFar() ?? {};
  expect(seenLayers).toEqual([first!, second!]);
  const layers = ranges.map(({ layer }) => layer);
  expect(layers).toEqual([...layers].sort((a, b) => (a === b ? 0 : a === second ? -1 : 1)));
  expect(compressedBytesOf({ ranges, seenLayers: [] })).toBeLessThan(20 * MiB);
  expect(joined.readSoFar()).toBeUndefined();
  image.endNotes();
  await contentAt(join(image.root, "d"));
  expect(image.readSoFar()?.ranges).toEqual(ranges);
  await joined.release();
  await image.release();
});

test("a recorded trace is fetched before anybody reads, in few requests, and nothing else is", async () => {
  const made = await makeImage();
  const start = await record(made, ["e", "c", "b"], "earlier");
  const mounts = await room.mounts();
  const image = await acquire(mounts, made, { trace: traceOf(start) });
  await until(() => image.stats().spansPresent >= start.ranges.length);
  const { requests, fetchedBytes } = image.stats();
  expect(fetchedBytes).toBeLessThanOrEqual(compressedBytesOf(start) * 1.1);
  expect(start.ranges.length).toBeGreaterThan(requests);
  made.source.beforeRead = () => Promise.reject(new Error("all of it is there"));
  for (const file of ["b", "c", "e"])
    expect(Bun.hash(await contentAt(join(image.root, file)))).toBe(Bun.hash(contentOf(made, file)));
  await image.release();
});

test("readers go before the trace, and the trace before the background", async () => {
  // Not compressed, so that the places of requests are those of the trace.
  const made = await makeImage("none");
  const [first = "", second = ""] = made.opened.layers.map(({ digest }) => digest);
  const start = await record(made, ["a", "c"], "earlier");
  const { reads } = made.source;
  const isTraced = (read: (typeof reads)[number]) =>
    start.ranges.some(
      ({ layer, tarOffset, tarLength }) =>
        layer === read.digest && tarOffset < read.end && tarOffset + tarLength > read.start,
    );
  const gate = Promise.withResolvers<void>();
  made.source.beforeRead = (bytes) =>
    made.source.reads.length === 1 ? gate.promise.then(() => bytes) : bytes;
  const mounts = await room.mounts({ limits: { idleMs: 0, traceConnections: 1, rangeBytes: 2 * MiB } });
  const image = await acquire(mounts, made, { trace: traceOf(start), background: true });
  await until(() => reads.length === 1);
  expect(reads.every(isTraced)).toBe(true);
  // The trace's one connection is taken, and hangs: a reader has its own.
  expect(Bun.hash(await contentAt(join(image.root, "f")))).toBe(Bun.hash(contentOf(made, "f")));
  expect(reads.slice(1).map(({ digest }) => digest)).toEqual(reads.slice(1).map(() => second));
  gate.resolve();
  await until(() => image.stats().complete);
  const untraced = reads.flatMap((read, at) => (read.digest === first && !isTraced(read) ? [at] : []));
  expect(untraced.length).toBeGreaterThan(0);
  expect(untraced[0]).toBeGreaterThan(reads.findLastIndex(isTraced));
  await image.release();
});

test("a trace of another index, of other layers, or of nothing there is, does no harm", async () => {
  const made = await makeImage();
  const [layer = { digest: "" }] = made.opened.layers;
  const odd = [
    { layer: `sha256:${"0".repeat(64)}`, tarOffset: 0, tarLength: 1e9, compressedBytes: 1 },
    { layer: layer.digest, tarOffset: 1e12, tarLength: 1e12, compressedBytes: 1 },
    { layer: layer.digest, tarOffset: 3 * MiB + 1, tarLength: 1, compressedBytes: 1 },
  ];
  const mounts = await room.mounts();
  const image = await acquire(mounts, made, { trace: traceOf({ ranges: odd, seenLayers: [] }) });
  await until(() => image.stats().spansPresent > 0);
  expect(image.stats()).toMatchObject({ requests: 1 });
  expect(Bun.hash(await contentAt(join(image.root, "f")))).toBe(Bun.hash(contentOf(made, "f")));
  await image.release();
});

test("a mount whose trace is still on its way is released at once", async () => {
  const made = await makeImage();
  const start = await record(made, ["a", "e"], "earlier");
  made.source.beforeRead = () => new Promise(() => undefined);
  const mounts = await room.mounts();
  const image = await acquire(mounts, made, { trace: traceOf(start), background: true });
  await until(() => made.source.reads.length > 0);
  await image.release();
  expect(mounts.status()).toEqual([]);
});
