import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { acquire, contentAt, contentOf, MiB, noise, TestRoom } from "./mount.test-kit.ts";

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

/** Waits for something that other code brings about, looking at each turn of the event loop. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

test("an image that nothing is known about is brought at once", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ first: noise(20 * MiB) }, { second: noise(12 * MiB) }]);
  const image = await acquire(mounts, made, { bringAll: true });
  await until(() => image.stats().complete);
  const { fetchedBytes, compressedBytes, requests } = image.stats();
  expect(fetchedBytes).toBeLessThan(compressedBytes + MiB);
  expect(requests).toBeLessThanOrEqual(12);
  await image.release();
});

test("what lies behind the latest miss comes first", async () => {
  const mounts = await room.mounts({ limits: { traceConnections: 1 } });
  const files = Object.fromEntries(Array.from({ length: 12 }, (_, at) => [`file${at}`, noise(4 * MiB)]));
  const made = await room.image([{ lower: noise(4 * MiB) }, files], "none");
  const upper = made.opened.layers[1]?.digest ?? "";
  const answer = new Map<number, () => void>();
  made.source.beforeRead = (bytes) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    answer.set(made.source.reads.length - 1, resolve);
    return promise.then(() => bytes);
  };
  const image = await acquire(mounts, made, { bringAll: true });
  await until(() => made.source.reads.length === 1);
  const reading = contentAt(join(image.root, "file6"));
  await until(() => made.source.reads.length >= 2);
  const missed = made.source.reads[1];
  expect(missed?.digest).toBe(upper);
  answer.get(0)?.();
  await until(() => made.source.reads.length >= 3);
  const next = made.source.reads[2];
  expect(next?.digest).toBe(upper);
  expect(next?.start).toBeGreaterThanOrEqual(missed?.end ?? 0);
  expect(next?.start).toBeLessThan((missed?.end ?? 0) + MiB);
  made.source.beforeRead = (bytes) => bytes;
  for (const go of answer.values()) go();
  expect(await reading).toEqual(contentOf(made, "file6"));
  await until(() => image.stats().complete);
  await image.release();
});

test("it ends with the first failure, and readers go on asking for themselves", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(30 * MiB) }]);
  made.source.beforeRead = () => Promise.reject(new Error("away"));
  const image = await acquire(mounts, made, { bringAll: true });
  await until(() => made.source.reads.length >= 6);
  const asked = made.source.reads.length;
  for (let turn = 0; turn < 200; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  expect(made.source.reads.length).toBe(asked);
  made.source.beforeRead = (bytes) => bytes;
  expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  await image.release();
});
