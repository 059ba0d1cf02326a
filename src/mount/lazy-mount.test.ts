import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import type { LazyImage } from "./lazy-image.ts";
import {
  acquire,
  contentAt,
  contentOf,
  MiB,
  mountsBelow,
  noise,
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

/** Every file of the tree, compared with what the image was made of. */
async function expectAllFiles(image: LazyImage, made: TestImage): Promise<void> {
  for (const [path, content] of made.files) {
    const read = await contentAt(join(image.root, path));
    expect([path, Bun.hash(read), read.length]).toEqual([path, Bun.hash(content), content.length]);
  }
}

test("the mounted tree holds what the layers hold, for every compression", async () => {
  const mounts = await room.mounts();
  for (const compression of ["none", "gzip", "zstd"] as const) {
    const made = await room.image(
      [
        { "a/one": noise(3 * MiB + 17), "a/small": noise(5) },
        { "b/two": noise(2 * MiB), empty: Buffer.alloc(0) },
      ],
      compression,
    );
    const image = await acquire(mounts, made);
    await expectAllFiles(image, made);
    expect(image.stats().complete).toBe(true);
    await image.release();
    expect(await mountsBelow(room.dir)).toEqual([]);
  }
});

test("only what is read is fetched", async () => {
  const mounts = await room.mounts();
  const made = await room.image([
    { first: noise(6 * MiB), second: noise(6 * MiB) },
    { third: noise(4 * MiB) },
  ]);
  const image = await acquire(mounts, made);
  expect(image.stats()).toMatchObject({ fetchedBytes: 0, requests: 0, spansPresent: 0, complete: false });
  expect((await run(["ls", "-R", image.root])).stdout).toContain("second");
  expect(image.stats().requests).toBe(0);
  expect(await contentAt(join(image.root, "third"))).toEqual(contentOf(made, "third"));
  const { fetchedBytes, compressedBytes, complete } = image.stats();
  expect(fetchedBytes).toBeGreaterThanOrEqual(4 * MiB);
  expect(fetchedBytes).toBeLessThan(5 * MiB);
  expect(compressedBytes).toBeGreaterThan(16 * MiB);
  expect(complete).toBe(false);
  await image.release();
});

test("readers who wait for the same bytes share one request", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(MiB) }]);
  const gate = Promise.withResolvers<void>();
  made.source.beforeRead = (bytes) => gate.promise.then(() => bytes);
  const image = await acquire(mounts, made);
  const asked = until(() => made.source.reads.length > 0);
  const readers = Promise.all(Array.from({ length: 8 }, () => contentAt(join(image.root, "file"))));
  await asked;
  gate.resolve();
  for (const read of await readers) expect(read).toEqual(contentOf(made, "file"));
  expect(made.source.reads).toHaveLength(1);
  await image.release();
});

test("a sequential reader is served by few requests", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(40 * MiB) }], "none");
  const image = await acquire(mounts, made);
  expect(Bun.hash(await contentAt(join(image.root, "file")))).toBe(Bun.hash(contentOf(made, "file")));
  expect(image.stats().spansTotal).toBeGreaterThanOrEqual(20);
  expect(image.stats().requests).toBeLessThanOrEqual(9);
  await image.release();
});

test("users of one image share its mount, and the last one's release ends it", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(1000) }]);
  const [first, second] = await Promise.all([acquire(mounts, made), acquire(mounts, made)]);
  expect(second.root).toBe(first.root);
  expect(mounts.status()).toMatchObject([
    { users: 2, workspace: "ws", root: first.root, servedByProcess: true },
  ]);
  await first.release();
  await first.release();
  expect(await contentAt(join(second.root, "file"))).toEqual(contentOf(made, "file"));
  await second.release();
  expect(await mountsBelow(room.dir)).toEqual([]);
  expect(mounts.status()).toEqual([]);
});

test("workspaces have mounts of their own over one cache, and each pays for its own misses", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ one: noise(3 * MiB) }, { two: noise(3 * MiB) }]);
  const [a, b] = await Promise.all([
    acquire(mounts, made, { workspace: "a" }),
    acquire(mounts, made, { workspace: "b" }),
  ]);
  expect(b.root).not.toBe(a.root);
  await contentAt(join(a.root, "one"));
  await contentAt(join(b.root, "one"));
  expect(a.stats().fetchedBytes).toBeGreaterThan(0);
  expect(b.stats().fetchedBytes).toBe(0);
  await contentAt(join(b.root, "two"));
  expect(b.stats().fetchedBytes).toBeGreaterThan(0);
  await a.release();
  await b.release();
});

test("an eager mount is complete when it is there, and needs no process", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(9 * MiB) }, { other: noise(MiB) }]);
  const seen: number[] = [];
  const image = await acquire(mounts, made, {
    eager: true,
    onProgress: ({ spansPresent }) => seen.push(spansPresent),
  });
  expect(image.stats().complete).toBe(true);
  expect(seen.at(-1)).toBe(image.stats().spansTotal);
  expect(mounts.status()).toMatchObject([{ servedByProcess: false }]);
  expect((await mountsBelow(room.dir)).filter((line) => line.includes("fuse"))).toEqual([]);
  await expectAllFiles(image, made);
  await image.release();
});

test("the background completes what nobody reads", async () => {
  const mounts = await room.mounts({ limits: { idleMs: 10 } });
  const made = await room.image([{ file: noise(9 * MiB) }, { other: noise(MiB) }]);
  const image = await acquire(mounts, made, { background: true });
  await until(() => image.stats().complete);
  made.source.beforeRead = () => Promise.reject(new Error("nothing is missing"));
  await expectAllFiles(image, made);
  await image.release();
});

test("eager, background and readers at once get along", async () => {
  const mounts = await room.mounts({ limits: { idleMs: 0 } });
  const made = await room.image([{ file: noise(9 * MiB) }, { other: noise(5 * MiB) }]);
  const gate = Promise.withResolvers<void>();
  made.source.beforeRead = (bytes) => gate.promise.then(() => bytes);
  const lazy = await acquire(mounts, made, { background: true });
  const eager = acquire(mounts, made, { eager: true });
  await until(() => made.source.reads.length >= 3);
  const reading = contentAt(join(lazy.root, "other"));
  setImmediate(gate.resolve);
  expect(await reading).toEqual(contentOf(made, "other"));
  expect((await eager).stats().complete).toBe(true);
  await (await eager).release();
  await lazy.release();
});

test("loop devices serve a tree like files do, and none is left", async () => {
  const before = await loops();
  const mounts = await room.mounts({ transport: "loop" });
  const made = await room.image([{ file: noise(5 * MiB) }, { other: noise(MiB + 1) }]);
  const image = await acquire(mounts, made);
  expect(mounts.status()).toMatchObject([{ transport: "loop" }]);
  await expectAllFiles(image, made);
  await image.release();
  const complete = await acquire(mounts, made);
  expect(mounts.status()).toMatchObject([{ transport: "loop", servedByProcess: false }]);
  await expectAllFiles(complete, made);
  await complete.release();
  expect(await loops()).toEqual(before);
});

async function loops(): Promise<string[]> {
  return (await run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"])).stdout
    .split("\n")
    .filter(Boolean);
}
