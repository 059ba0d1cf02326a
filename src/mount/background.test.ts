import { afterEach, beforeEach, expect, test } from "bun:test";
import { join } from "node:path";
import { acquire, contentAt, MiB, noise, TestRoom, until } from "./mount.test-kit.ts";

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

test("the background of all mounts together keeps to one bandwidth", async () => {
  const rate = 16 * MiB;
  const mounts = await room.mounts({ limits: { idleMs: 0 }, backgroundBytesPerSecond: rate });
  const made = [await room.image([{ one: noise(6 * MiB) }]), await room.image([{ two: noise(6 * MiB) }])];
  const started = performance.now();
  const images = await Promise.all(made.map((image) => acquire(mounts, image, { background: true })));
  await until(() => images.every((image) => image.stats().complete));
  const seconds = (performance.now() - started) / 1000;
  const bytes = images.reduce((sum, image) => sum + image.stats().fetchedBytes, 0);
  // The last request is paid for after it has come.
  expect(bytes / seconds).toBeLessThan(rate * 1.25);
  for (const image of images) await image.release();
});

test("the background of one mount waits while a reader of another does", async () => {
  const mounts = await room.mounts({ limits: { idleMs: 1 } });
  const read = await room.image([{ file: noise(MiB) }]);
  const rest = await room.image([{ file: noise(MiB) }]);
  const gate = Promise.withResolvers<void>();
  read.source.beforeRead = (bytes) => gate.promise.then(() => bytes);
  const slow = await acquire(mounts, read);
  const reading = contentAt(join(slow.root, "file"));
  await until(() => read.source.reads.length > 0);
  const image = await acquire(mounts, rest, { background: true });
  // Turns of the event loop in plenty for a request that must not be made.
  for (let turns = 0; turns < 1000; turns += 1) await new Promise((resolve) => setImmediate(resolve));
  expect(rest.source.reads).toEqual([]);
  gate.resolve();
  await reading;
  await until(() => image.stats().complete);
  await image.release();
  await slow.release();
});

test("what a starting container reads keeps the background away, though nothing has to be fetched for it", async () => {
  const mounts = await room.mounts({ limits: { idleMs: 800 } });
  const made = await room.image([{ warm: noise(MiB), rest: noise(6 * MiB) }]);
  const before = await acquire(mounts, made, { workspace: "before" });
  await contentAt(join(before.root, "warm"));
  const image = await acquire(mounts, made, { background: true });
  const [asked] = [made.source.reads.length];
  const started = performance.now();
  // Through a mount each time, since the kernel keeps what was read: first reads, for longer than the background waits.
  for (let next = 0; performance.now() - started < 1600; next += 1) {
    const other = await acquire(mounts, made, { workspace: `other ${next}` });
    await contentAt(join(other.root, "warm"));
    await other.release();
  }
  expect(made.source.reads).toHaveLength(asked);
  await until(() => image.stats().complete);
  await image.release();
  await before.release();
});
