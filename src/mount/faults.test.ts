import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { RegistryError } from "../registry/error.ts";
import { run } from "../std/spawn.ts";
import {
  acquire,
  contentAt,
  contentOf,
  MiB,
  mountsBelow,
  noise,
  TestRoom,
  TestSource,
  until,
} from "./mount.test-kit.ts";

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

/** The errno that reading a file ends with; none when it can be read. */
async function errnoOfReading(path: string): Promise<string | undefined> {
  try {
    await readFile(path);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

/** Reads until it works, for a second at most: what was wrong twice is told again for a moment. */
async function contentOnceMended(path: string): Promise<Uint8Array> {
  for (const endMs = performance.now() + 1_000; performance.now() < endMs; )
    if ((await errnoOfReading(path)) === undefined) break;
  return contentAt(path);
}

function corrupted(bytes: Uint8Array): Uint8Array {
  const wrong = bytes.slice();
  const middle = wrong.length >> 1;
  wrong[middle] = (wrong[middle] ?? 0) ^ 1;
  return wrong;
}

test("bytes that are wrong once are asked for again, and no reader notices", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(MiB) }]);
  let bad = 1;
  made.source.beforeRead = (bytes) => (bad-- > 0 ? corrupted(bytes) : bytes);
  const image = await acquire(mounts, made);
  expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  expect(made.source.reads).toHaveLength(2);
  await image.release();
});

test("bytes that stay wrong are an error for the reader, and a later good read heals", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(MiB) }]);
  made.source.beforeRead = corrupted;
  const image = await acquire(mounts, made);
  expect(await errnoOfReading(join(image.root, "file"))).toBe("EIO");
  const failure = await image.failure;
  expect(failure.code).toBe("corrupt_blob");
  expect(failure.layer).toBe(made.opened.index.layers[0]?.digest);
  expect(image.stats().spansPresent).toBe(0);
  made.source.beforeRead = (bytes) => bytes;
  // The kernel asks again by itself after an error: what it asked for before the source was mended may still be under way.
  expect(await contentOnceMended(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  await image.release();
});

test("what the background found wrong is told when a reader comes to it", async () => {
  const mounts = await room.mounts({ limits: { idleMs: 1 } });
  const made = await room.image([{ file: noise(MiB) }]);
  made.source.beforeRead = corrupted;
  const image = await acquire(mounts, made, { background: true });
  await until(() => made.source.reads.length >= 2);
  // What came second is looked through within this; a reader who comes earlier waits for it and hears the same.
  const lookedAtMs = performance.now() + 200;
  await until(() => performance.now() > lookedAtMs);
  expect(await errnoOfReading(join(image.root, "file"))).toBe("EIO");
  expect((await image.failure).code).toBe("corrupt_blob");
  await image.release();
});

test("a refusal of the registry is the failure that the container hears of, with its cause", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(MiB) }]);
  const refusal = new RegistryError("denied", "the registry refuses the credential", {
    registry: "registry.test",
    repository: "app",
  });
  made.source.beforeRead = () => Promise.reject(refusal);
  const image = await acquire(mounts, made);
  expect(await errnoOfReading(join(image.root, "file"))).toBe("EIO");
  const failure = await image.failure;
  expect(failure.code).toBe("source_failed");
  expect(failure.cause).toBe(refusal);
  await image.release();
});

test("a rotated credential serves the next read", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(MiB) }]);
  const rotated = {
    ...made,
    source: (await room.image([{ file: made.files.get("file") ?? Buffer.alloc(0) }])).source,
  };
  made.source.beforeRead = () => Promise.reject(new Error("expired"));
  const image = await acquire(mounts, made);
  expect(await errnoOfReading(join(image.root, "file"))).toBe("EIO");
  image.replaceSource(rotated.source);
  expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  await image.release();
});

test("a source that hangs, deaf to its signal, is an error within the deadline", async () => {
  const mounts = await room.mounts({ limits: { deadlineMs: 200 } });
  const made = await room.image([{ file: noise(MiB) }]);
  made.source.beforeRead = () => new Promise(() => undefined);
  const image = await acquire(mounts, made);
  const started = performance.now();
  expect(await errnoOfReading(join(image.root, "file"))).toBe("EIO");
  expect(performance.now() - started).toBeLessThan(5_000);
  expect((await image.failure).message).toContain("200 ms");
  made.source.beforeRead = (bytes) => bytes;
  expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  await image.release();
});

test("what took long to fail is not waited for a second time by the same reader", async () => {
  const mounts = await room.mounts({ limits: { deadlineMs: 1_100 } });
  const made = await room.image([{ file: noise(MiB) }]);
  made.source.beforeRead = () => new Promise(() => undefined);
  const image = await acquire(mounts, made);
  expect(await errnoOfReading(join(image.root, "file"))).toBe("EIO");
  expect(made.source.reads).toHaveLength(1);
  await image.release();
});

test("requests that hang, as many as a mount may make, do not keep others from being made", async () => {
  const mounts = await room.mounts({ limits: { deadlineMs: 30_000 } });
  // A layer each: misses that are neighbours would share a request.
  const names = [..."abcdefgh"];
  const stuck = names.map((name) => ({ [name]: noise(1000) }));
  const made = await room.image([...stuck, { free: noise(1000) }]);
  const free = made.opened.index.layers.at(-1)?.digest;
  const gate = Promise.withResolvers<void>();
  made.source.beforeRead = async (bytes) => {
    if (made.source.reads.at(-1)?.digest !== free) await gate.promise;
    return bytes;
  };
  const image = await acquire(mounts, made);
  const readers = names.map((name) =>
    Bun.spawn(["head", "-c", "1", join(image.root, name)], { stdout: "ignore" }),
  );
  await until(() => made.source.reads.length >= 8);
  const began = performance.now();
  expect(await contentAt(join(image.root, "free"))).toEqual(contentOf(made, "free"));
  expect(performance.now() - began).toBeLessThan(10_000);
  gate.resolve();
  for (const reader of readers) expect(await reader.exited).toBe(0);
  await image.release();
});

test("a registry without ranged reads is read as one stream that all readers join", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ a: noise(3 * MiB), b: noise(3 * MiB) }]);
  made.source.ranges = false;
  const image = await acquire(mounts, made);
  const [a, b] = await Promise.all([contentAt(join(image.root, "a")), contentAt(join(image.root, "b"))]);
  expect(a).toEqual(contentOf(made, "a"));
  expect(b).toEqual(contentOf(made, "b"));
  expect(made.source.streams).toHaveLength(1);
  await image.release();
});

test("readers of a stream are answered as their bytes go by", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ a: noise(3 * MiB), b: noise(9 * MiB) }]);
  made.source.ranges = false;
  const gate = Promise.withResolvers<void>();
  let passed = 0;
  made.source.beforeChunk = async (chunk) => {
    if (passed > 7 * MiB) await gate.promise;
    passed += chunk.length;
    return chunk;
  };
  const image = await acquire(mounts, made);
  expect(await contentAt(join(image.root, "a"))).toEqual(contentOf(made, "a"));
  gate.resolve();
  expect(await contentAt(join(image.root, "b"))).toEqual(contentOf(made, "b"));
  await image.release();
});

/** A layer that can only be read from its start: one large frame. */
function oneFrame(): Record<string, Buffer> {
  return { a: noise(3 * MiB), b: noise(3 * MiB) };
}

test("a single zstd frame is inflated in one pass, which starts again after it broke", async () => {
  const mounts = await room.mounts();
  const made = await room.image([oneFrame()], "zstd");
  let chunks = 0;
  made.source.beforeChunk = (chunk) => {
    chunks += 1;
    if (chunks === 5)
      throw new RegistryError("unreachable", "the connection broke", { registry: "r", repository: "a" });
    return chunk;
  };
  const image = await acquire(mounts, made);
  const [a, b] = await Promise.all(["a", "b"].map((name) => contentAt(join(image.root, name))));
  expect(a).toEqual(contentOf(made, "a"));
  expect(b).toEqual(contentOf(made, "b"));
  expect((await image.failure).code).toBe("source_failed");
  expect(made.source.streams).toHaveLength(2);
  expect(made.source.reads).toHaveLength(0);
  await image.release();
});

test("a stream whose bytes are wrong is an error for who waits, and leaves nothing wrong behind", async () => {
  const mounts = await room.mounts();
  for (const compression of ["gzip", "zstd"] as const) {
    const made = await room.image([oneFrame()], compression);
    made.source.ranges = false;
    made.source.beforeChunk = corrupted;
    const image = await acquire(mounts, made);
    expect(await errnoOfReading(join(image.root, "a"))).toBe("EIO");
    expect((await image.failure).code).toBe("corrupt_blob");
    made.source.beforeChunk = (chunk) => chunk;
    expect(await contentOnceMended(join(image.root, "a"))).toEqual(contentOf(made, "a"));
    await image.release();
  }
});

test("an eager mount that cannot be completed fails by name and leaves nothing", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(5 * MiB) }]);
  made.source.beforeRead = corrupted;
  const failed = await acquire(mounts, made, { eager: true }).catch((error: unknown) => error);
  expect(failed).toMatchObject({ name: "MountError", code: "corrupt_blob" });
  expect(await mountsBelow(room.dir)).toEqual([]);
  expect(mounts.status()).toEqual([]);
});

test("an index whose span files are swapped is refused before anything is mounted", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ a: noise(5000) }, { b: noise(50_000) }]);
  const [first, second] = made.opened.layers;
  if (first === undefined || second === undefined) throw new Error("two layers were built");
  const swapped = { ...made.opened, layers: [{ ...first, spanPath: second.spanPath }, second] };
  const failed = await acquire(mounts, { ...made, opened: swapped }).catch((error: unknown) => error);
  expect(failed).toMatchObject({ code: "corrupt_index" });
  expect(await mountsBelow(room.dir)).toEqual([]);
});

test("a full disk is served without keeping, and only an eager mount fails by it", async () => {
  const cacheDir = join(room.dir, "small");
  await mkdir(cacheDir);
  await run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", cacheDir]);
  try {
    const mounts = await room.mounts({ cacheDir });
    const made = await room.image([{ file: noise(5 * MiB) }]);
    const image = await acquire(mounts, made);
    expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
    expect(image.stats().complete).toBe(false);
    await image.release();
    const failed = await acquire(mounts, made, { eager: true }).catch((error: unknown) => error);
    expect(failed).toMatchObject({ name: "MountError", code: "no_space" });
    await mounts.close();
  } finally {
    await run(["umount", cacheDir]);
  }
});

test("a bad credential of one user does not spoil the start of another", async () => {
  const mounts = await room.mounts();
  const made = await room.image([{ file: noise(3 * MiB) }]);
  const denied = new TestSource(made.source.blobs);
  const asked = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  denied.beforeRead = async () => {
    asked.resolve();
    await gate.promise;
    throw new RegistryError("denied", "the registry refuses the credential", {
      registry: "r",
      repository: "a",
    });
  };
  const refused = acquire(mounts, { ...made, source: denied }, { eager: true }).catch(
    (error: unknown) => error,
  );
  await asked.promise;
  const joining = acquire(mounts, made, { eager: true });
  gate.resolve();
  expect(await refused).toMatchObject({ code: "source_failed" });
  const image = await joining;
  expect(await contentAt(join(image.root, "file"))).toEqual(contentOf(made, "file"));
  await image.release();
});
