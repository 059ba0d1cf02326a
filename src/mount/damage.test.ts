import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  closeSync,
  copyFileSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32c } from "../native/crc32c.test-kit.ts";
import { run } from "../std/spawn.ts";
import type { LazyImage } from "./lazy-image.ts";
import { acquire, MiB, noise, type TestImage, TestRoom } from "./mount.test-kit.ts";

// A reader who knows what every file holds reads all of them while the cache is damaged in every way there is.

let room: TestRoom;

beforeEach(async () => {
  room = await TestRoom.create();
});

afterEach(async () => {
  await room.end();
});

const cacheFolder = () => join(room.dir, "cache", "layers", "sha256");

/** The files of the cache with a suffix, by path. */
function cached(suffix: "blob" | "map"): string[] {
  return readdirSync(cacheFolder())
    .filter((name) => name.endsWith(`.${suffix}`))
    .map((name) => join(cacheFolder(), name));
}

function each(suffix: "blob" | "map", damage: (path: string) => void): void {
  for (const path of cached(suffix)) damage(path);
}

/** Two layers: large files that span many spans, and many small ones that share one. */
function made(): Promise<TestImage> {
  const small = Array.from({ length: 12 }, (_, i) => [`small/${i}`, noise(1 + i * 900)] as const);
  return room.image([{ a: noise(5 * MiB), ...Object.fromEntries(small) }, { b: noise(3 * MiB) }]);
}

/** Takes the kernel's copies of the files away, so that what is read next comes from the cache file. */
async function forget(image: LazyImage, image_: TestImage): Promise<void> {
  const files = [...image_.files.keys()].map((path) => join(image.root, path));
  for (const blobs of new Bun.Glob("state/mounts/*/blobs/*").scanSync({ cwd: room.dir }))
    files.push(join(room.dir, blobs));
  await run(["sh", "-c", 'for f; do dd if="$f" iflag=nocache count=0 status=none; done', "sh", ...files]);
}

/**
 * Reads every file, cold. Each must be right, or an error: the names of those that gave EIO.
 * @param meanwhile called when some have been read
 */
async function readAll(image: LazyImage, of: TestImage, meanwhile?: () => void): Promise<string[]> {
  await forget(image, of);
  const failed: string[] = [];
  let left = 5;
  await Promise.all(
    [...of.files].map(async ([path, content]) => {
      const got = await readFile(join(image.root, path)).catch((error: NodeJS.ErrnoException) => error);
      if (got instanceof Error) {
        expect(got.code).toBe("EIO");
        failed.push(path);
      } else if (!got.equals(content)) throw new Error(`${path} holds wrong bytes`);
      if (--left === 0) meanwhile?.();
    }),
  );
  return failed;
}

function overwrite(path: string, at: number, length: number): void {
  const fd = openSync(path, "r+");
  writeSync(fd, Buffer.alloc(length, 7), 0, length, at);
  closeSync(fd);
}

/** Ways to damage the cache, and whether what is lost has to be fetched again. */
const damages: readonly (readonly [what: string, refetches: boolean, damage: () => void])[] = [
  ["cut in the middle", true, () => each("blob", (path) => truncateSync(path, MiB))],
  ["emptied", true, () => each("blob", (path) => truncateSync(path, 0))],
  [
    "cut and extended with zeros",
    true,
    () =>
      each("blob", (path) => {
        const { size } = statSync(path);
        truncateSync(path, MiB);
        truncateSync(path, size);
      }),
  ],
  ["overwritten here and there", true, () => each("blob", (path) => overwrite(path, 2 * MiB + 5000, 3))],
  ["without its map", false, () => each("map", (path) => rmSync(path))],
  ["with an emptied map", false, () => each("map", (path) => truncateSync(path, 0))],
  ["with a map of nonsense", false, () => each("map", (path) => overwrite(path, 0, 300))],
  ["deleted", false, () => rmSync(join(room.dir, "cache"), { recursive: true })],
];

test.each(damages)(
  "a cache file that is %s under a mount gives right bytes",
  async (_, refetches, damage) => {
    const image_ = await made();
    const mounts = await room.mounts();
    const image = await acquire(mounts, image_);
    expect(await readAll(image, image_)).toEqual([]);
    const before = image_.source.reads.length;
    damage();
    expect(await readAll(image, image_)).toEqual([]);
    if (refetches) expect(image_.source.reads.length).toBeGreaterThan(before);
    else expect(image_.source.reads.length).toBe(before);
    await image.release();
    const again = await acquire(mounts, image_);
    expect(await readAll(again, image_)).toEqual([]);
    await again.release();
  },
);

test.each(damages)(
  "a cache file that is %s between two mounts gives right bytes",
  async (_what, _, damage) => {
    const image_ = await made();
    const mounts = await room.mounts();
    const first = await acquire(mounts, image_);
    expect(await readAll(first, image_)).toEqual([]);
    await first.release();
    damage();
    const second = await acquire(mounts, image_);
    expect(await readAll(second, image_)).toEqual([]);
    await second.release();
    await mounts.close();
  },
);

test("readers who are at it while the cache is damaged, once and again, get right bytes", async () => {
  const image_ = await made();
  const image = await acquire(await room.mounts(), image_);
  expect(await readAll(image, image_)).toEqual([]);
  const repeatable = damages.filter(([what]) => what !== "deleted" && what !== "without its map");
  for (const [, , damage] of [...repeatable, ...repeatable]) {
    expect(await readAll(image, image_, damage)).toEqual([]);
    expect(await readAll(image, image_)).toEqual([]);
  }
  await image.release();
});

test("the background goes on where a layer is half there and unproved, and ends", async () => {
  const image_ = await made();
  const mounts = await room.mounts({ limits: { idleMs: 1 } });
  const first = await acquire(mounts, image_);
  await readFile(join(first.root, "a"));
  await first.release();
  each("blob", (path) => overwrite(path, MiB, 10));
  const second = await acquire(mounts, image_, { background: true });
  while (!second.stats().complete) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(await readAll(second, image_)).toEqual([]);
  await second.release();
});

test("bits set by hand and an older map make nothing of what is not there", async () => {
  const image_ = await made();
  const mounts = await room.mounts();
  const image = await acquire(mounts, image_);
  await readFile(join(image.root, "b"));
  await image.release();
  const older = cached("map").map((path) => [path, readFileSync(path)] as const);
  const more = await acquire(mounts, image_);
  expect(await readAll(more, image_)).toEqual([]);
  await more.release();
  for (const [path, map] of older) writeFileSync(path, map);
  const back = await acquire(mounts, image_);
  expect(await readAll(back, image_)).toEqual([]);
  await back.release();
  for (const path of cached("blob")) truncateSync(path, 0);
  for (const [path] of older) overwrite(path, 256, 1);
  const set = await acquire(mounts, image_);
  expect(await readAll(set, image_)).toEqual([]);
  await set.release();
});

/** As a disk does it: bytes change and nothing else does, so each map is made to fit the times that this left. */
function rot(): void {
  for (const path of cached("blob")) {
    overwrite(path, MiB + 10, 1);
    const { mtimeNs, ctimeNs, blocks } = statSync(path, { bigint: true });
    const mapPath = path.replace(/blob$/, "map");
    const map = readFileSync(mapPath);
    [mtimeNs, ctimeNs, blocks].forEach((value, i) => void map.writeBigInt64LE(value, 104 + 8 * i));
    map.writeUInt32LE(0, 128);
    map.writeUInt32LE(crc32c(Buffer.concat([map.subarray(0, 132), map.subarray(256)])), 128);
    writeFileSync(mapPath, map);
  }
}

test("bytes that rotted on the disk are found when the cache is verified, and only then", async () => {
  const image_ = await made();
  const mounts = await room.mounts();
  const first = await acquire(mounts, image_, { eager: true });
  await first.release();
  rot();
  const believing = await acquire(mounts, image_);
  await expect(readAll(believing, image_)).rejects.toThrow("wrong bytes");
  await believing.release();
  await mounts.close();
  const verifying = await acquire(await room.mounts({ verifyCache: true }), image_);
  expect(await readAll(verifying, image_)).toEqual([]);
  await verifying.release();
});

test("a complete layer that EROFS reads by itself gives EIO where it was cut, and the next mount heals it", async () => {
  const image_ = await made();
  const mounts = await room.mounts();
  const image = await acquire(mounts, image_, { eager: true });
  for (const path of cached("blob")) truncateSync(path, MiB);
  expect((await readAll(image, image_)).sort()).toContain("b");
  const other = await acquire(mounts, image_, { workspace: "other" });
  expect(await readAll(other, image_)).toEqual([]);
  expect(await readAll(image, image_)).toEqual([]);
  await other.release();
  await image.release();
});

test("with a verified cache, complete layers are watched too while they are mounted", async () => {
  const image_ = await made();
  const mounts = await room.mounts({ verifyCache: true });
  const image = await acquire(mounts, image_, { eager: true });
  for (const [, , damage] of damages.slice(0, 4)) {
    damage();
    expect(await readAll(image, image_)).toEqual([]);
  }
  await image.release();
});

test("a process killed while it fills its cache, and pages that never reached the disk, leave nothing wrong", async () => {
  const image_ = await made();
  await mkdir(join(room.dir, "blobs"));
  for (const [digest, bytes] of image_.source.blobs)
    await writeFile(join(room.dir, "blobs", digest.replace("sha256:", "")), bytes);
  const { manifestDigest } = image_.opened.index;
  for (const torn of [false, true]) {
    const script = join(import.meta.dir, "damage.test-kit.ts");
    const child = Bun.spawn([process.execPath, script, room.dir, manifestDigest], { stdout: "pipe" });
    const lines = child.stdout.getReader();
    const told = async () => new TextDecoder().decode((await lines.read()).value);
    let text = "";
    while (!text.includes("\n")) text += await told();
    const root = text.trim().replace(/^\.*/, "");
    const reader = Bun.spawn(["cat", join(root, "a"), join(root, "b")], {
      stdout: "ignore",
      stderr: "ignore",
    });
    // Killed when its second request has gone out: the first is being filled, or just was.
    for (let requests = 0; requests < 2; ) requests += (await told()).split(".").length - 1;
    child.kill("SIGKILL");
    await child.exited;
    await reader.exited;
    if (torn)
      for (const path of cached("blob"))
        for (let at = 0; at < statSync(path).size; at += MiB / 4) overwrite(path, at, 4096);
    const mounts = await room.mounts();
    const image = await acquire(mounts, image_, { eager: torn });
    expect(await readAll(image, image_)).toEqual([]);
    await image.release();
    await mounts.close();
    rmSync(join(room.dir, "cache"), { recursive: true });
  }
});

test("a damaged index is refused, with the name of the file", async () => {
  const image_ = await made();
  const { index, sha256, erofsPath, layers } = image_.opened;
  const spanPath = layers[0]?.spanPath ?? "";
  for (const path of [erofsPath, spanPath]) {
    const kept = `${path}.kept`;
    for (const damage of [() => truncateSync(path, 200), () => overwrite(path, 100, 4)]) {
      copyFileSync(path, kept);
      damage();
      const refused = await room.openIndex(index.manifestDigest, sha256).catch((error: unknown) => error);
      expect(refused).toMatchObject({ name: "IndexError", code: "corrupt_index" });
      expect((refused as Error).message).toContain(path);
      copyFileSync(kept, path);
    }
  }
  const image = await acquire(await room.mounts(), image_);
  expect(await readAll(image, image_)).toEqual([]);
  await image.release();
});

test("with a quota that is reached, and with a full disk, every byte is right", async () => {
  const image_ = await made();
  const mounts = await room.mounts({ cacheQuotaBytes: MiB });
  for (const workspace of ["one", "two"]) {
    const image = await acquire(mounts, image_, { workspace });
    expect(await readAll(image, image_)).toEqual([]);
    await image.release();
  }
  await mounts.close();
  const cacheDir = join(room.dir, "small");
  await mkdir(cacheDir);
  await run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", cacheDir]);
  try {
    const full = await room.mounts({ cacheDir });
    for (let round = 0; round < 2; round += 1) {
      const image = await acquire(full, image_);
      for (let times = 0; times < 2; times += 1) expect(await readAll(image, image_)).toEqual([]);
      await image.release();
    }
    await full.close();
  } finally {
    await run(["umount", cacheDir]);
  }
});
