import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { chunksOf, sha256 } from "../index/layer.test-kit.ts";
import type { BlobPlace } from "../index/layer-blob.ts";
import { indexLayerStream } from "../index/layer-index.ts";
import { defaultIndexLimits } from "../index/limits.ts";
import { makeTar, SeededRandom } from "../index/tar.test-kit.ts";
import type { IndexedLayer } from "../index/types.ts";
import { run } from "../std/spawn.ts";
import { LayerCache } from "./layer-cache.ts";
import { LayerIntake } from "./layer-intake.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-intake-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const random = new SeededRandom(5);
const files = Array.from({ length: 40 }, (_, at) => ({ name: `f${at}`, data: random.bytes(90_000 + at) }));
const bytes = gzipSync(makeTar(files));
const layer = {
  digest: `sha256:${sha256(bytes)}`,
  size: bytes.length,
  mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
};
const never = new AbortController().signal;

/** Indexes the layer into a new folder, with its blob at the place. */
async function indexAt(place: BlobPlace | undefined): Promise<{ indexed: IndexedLayer; spanPath: string }> {
  const folder = await mkdtemp(join(dir, "index-"));
  const out = { spanPath: join(folder, "span"), tocPath: join(folder, "toc"), blob: place };
  const indexed = await indexLayerStream(layer, chunksOf(bytes), out, defaultIndexLimits, never);
  return { indexed, spanPath: out.spanPath };
}

test("a layer that was indexed is whole in the cache, and a mount needs nobody for it", async () => {
  const cacheDir = join(dir, "whole");
  const intake = await LayerIntake.open(cacheDir, undefined);
  const place = await intake.place(layer);
  const { indexed, spanPath } = await indexAt(place);
  const blob = await readFile(place?.path ?? "");
  await intake.keep(indexed, spanPath, place as BlobPlace);
  await intake.close();
  expect(await readdir(join(cacheDir, "incoming"))).toEqual([]);
  const used = await (await LayerCache.open(cacheDir, undefined)).use(indexed, spanPath);
  expect(used.blob.complete).toBe(true);
  expect((await readFile(used.path)).equals(blob)).toBe(true);
  for (const { data } of files) expect(blob.includes(data)).toBe(true);
  await used.release();
});

test("a layer that somebody fills stays as it is", async () => {
  const cacheDir = join(dir, "busy");
  const { indexed, spanPath } = await indexAt(undefined);
  const user = await (await LayerCache.open(cacheDir, undefined)).use(indexed, spanPath);
  const before = await stat(user.path);
  const intake = await LayerIntake.open(cacheDir, undefined);
  const place = (await intake.place(layer)) as BlobPlace;
  await indexAt(place);
  await intake.keep(indexed, spanPath, place);
  expect((await stat(user.path)).ino).toBe(before.ino);
  expect(user.blob.complete).toBe(false);
  await intake.close();
  expect(await readdir(join(cacheDir, "incoming"))).toEqual([]);
  await user.release();
});

test("there is no place on a disk that is nearly full, and none above the quota", async () => {
  const disk = join(dir, "disk");
  await mkdir(disk);
  await run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]);
  const intake = await LayerIntake.open(join(disk, "cache"), 1_000_000);
  try {
    expect((await intake.place(layer))?.sizeBytesMax).toBe(1_000_000);
    await writeFile(join(disk, "filler"), Buffer.alloc(4_050_000));
    expect(await intake.place(layer)).toBeUndefined();
  } finally {
    await intake.close();
    await run(["umount", disk]);
  }
});

test("what a process left that died is removed, and what a living one has is not", async () => {
  const cacheDir = join(dir, "left");
  const living = await LayerIntake.open(cacheDir, undefined);
  const place = (await living.place(layer)) as BlobPlace;
  await writeFile(place.path, "half");
  const dead = join(cacheDir, "incoming", "dead");
  await mkdir(dead);
  await writeFile(join(dead, "1.blob"), "half");
  await writeFile(`${dead}.lock`, "");
  const next = await LayerIntake.open(cacheDir, undefined);
  expect((await readdir(join(cacheDir, "incoming"))).filter((name) => name.startsWith("dead"))).toEqual([]);
  expect(await readFile(place.path, "utf8")).toBe("half");
  await next.close();
  await living.close();
  expect(await readdir(join(cacheDir, "incoming"))).toEqual([]);
});
