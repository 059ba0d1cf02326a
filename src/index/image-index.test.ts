import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { MemorySource, type TestImage, testImage } from "./image-index.test-kit.ts";
import {
  type BuildImageIndexOptions,
  type BuiltImageIndex,
  buildImageIndex,
  type IndexLayer,
  type LayerProgress,
} from "./image-index.ts";
import { readSpanFile } from "./layer.test-kit.ts";
import { indexLayerStream } from "./layer-index.ts";
import { defaultIndexLimits } from "./limits.ts";
import { IndexStore, type OpenedImageIndex } from "./store.ts";
import { diffTrees } from "./tree-diff.test-kit.ts";
import type { TestLayer } from "./tree-layers.test-kit.ts";
import { Bench } from "./tree-oracle.test-kit.ts";

let bench: Bench;
let store: IndexStore;
beforeEach(async () => {
  bench = await Bench.open();
  store = await IndexStore.open(bench.path("store"));
});
afterEach(async () => {
  await bench.close();
});

const indexLayer: IndexLayer = (layer, bytes, out, signal) =>
  indexLayerStream(layer, bytes, out, defaultIndexLimits, signal);

const base: TestLayer = [
  { path: "", type: "dir", mtime: [1, 0] },
  { path: "bin", type: "dir", mtime: [2, 0] },
  { path: "bin/sh", type: "file", content: "#!".repeat(9000), mode: 0o755 },
  { path: "etc", type: "dir", mtime: [3, 0] },
  { path: "etc/passwd", type: "file", content: "root:x:0:0::/:/bin/sh\n" },
];
const upper: TestLayer = [
  { path: "etc", type: "dir", mtime: [4, 0] },
  { path: "etc/.wh.passwd", type: "file" },
  { path: "etc/motd", type: "file", content: "hello", xattrs: { "user.a": "b" } },
  { path: "bin/bash", type: "hardlink", link: "bin/sh" },
];

function build(image: TestImage, more: Partial<BuildImageIndexOptions> = {}): Promise<BuiltImageIndex> {
  return buildImageIndex({
    repository: "example.test/team/app",
    resolved: image.resolved,
    source: new MemorySource(image.blobs),
    store,
    scratchDir: bench.path("scratch"),
    indexLayer,
    signal: new AbortController().signal,
    ...more,
  });
}

/** Mounts an opened index over blobs that are put together from the layers as the span files say. */
async function mount(image: TestImage, opened: OpenedImageIndex): Promise<string> {
  const paths: string[] = [];
  for (const [at, layer] of opened.layers.entries()) {
    const tar = gunzipSync(image.blobs.get(layer.digest) ?? new Uint8Array());
    const { extents } = await readSpanFile(layer.spanPath);
    const blob = Buffer.alloc(layer.blobSizeBytes);
    for (const { tarOffset, blobOffset, length } of extents)
      tar.copy(blob, blobOffset, tarOffset, tarOffset + length);
    paths.push(bench.path(`blob-${at}`));
    await writeFile(bench.path(`blob-${at}`), blob);
  }
  const erofs = bench.path("mounted-image");
  await writeFile(erofs, await readFile(opened.erofsPath));
  return await bench.mount(erofs, paths);
}

async function scratchLeft(): Promise<string[]> {
  return await readdir(bench.path("scratch"));
}

test("an image is indexed, stored, opened and mounted as unpacking shows it", async () => {
  const layers = [base, upper];
  const image = testImage(layers);
  const { index, sha256 } = await build(image);
  const opened = await store.openImage(image.resolved.manifest.digest, sha256);
  expect(opened.index).toEqual(index);
  expect(index.platform).toBe("linux/amd64");
  expect(index.imageConfig).toBe(Buffer.from(image.resolved.configBytes).toString());
  expect(index.layers.map(({ digest }) => digest)).toEqual(image.resolved.layers.map(({ digest }) => digest));
  expect(
    await diffTrees(await mount(image, opened), await bench.unpack(layers), { directoryLinks: true }),
  ).toEqual([]);
  expect(await scratchLeft()).toEqual([]);
});

test("progress goes up to the size of each layer, and the tee sees all bytes in order", async () => {
  const image = testImage([base, upper]);
  const progress = new Map<string, LayerProgress[]>();
  const seen = new Map<string, Buffer[]>();
  await build(image, {
    onProgress: (step) => void progress.set(step.digest, [...(progress.get(step.digest) ?? []), step]),
    tee: ({ digest }, bytes) => void seen.set(digest, [...(seen.get(digest) ?? []), Buffer.from(bytes)]),
  });
  for (const { digest, size } of image.resolved.layers) {
    const steps = progress.get(digest)?.map(({ bytesDone }) => bytesDone) ?? [];
    expect(steps).toEqual(steps.toSorted((a, b) => a - b));
    expect(progress.get(digest)?.at(-1)).toEqual({ digest, bytesDone: size, bytesTotal: size });
    expect(Buffer.concat(seen.get(digest) ?? []).equals(image.blobs.get(digest) ?? new Uint8Array())).toBe(
      true,
    );
  }
});

test("layers that the store has are not read again, for another image and repository neither", async () => {
  await build(testImage([base]));
  const image = testImage([base, upper]);
  const source = new MemorySource(image.blobs);
  await build(image, { source, repository: "other.test/app" });
  expect(source.stats().requests).toBe(1);
});

test("the same image of two repositories is two indexes, and each opens by its hash", async () => {
  const image = testImage([base]);
  const [one, other] = [await build(image), await build(image, { repository: "other.test/app" })];
  const digest = image.resolved.manifest.digest;
  expect((await store.openImage(digest, one.sha256)).index.repository).toBe("example.test/team/app");
  expect((await store.openImage(digest, other.sha256)).index.repository).toBe("other.test/app");
});

test("a layer that an image has twice is read once and is two devices", async () => {
  const image = testImage([base, upper, base]);
  const source = new MemorySource(image.blobs);
  const { index, sha256 } = await build(image, { source });
  expect(source.stats().requests).toBe(2);
  expect(index.layers.length).toBe(3);
  const root = await mount(image, await store.openImage(image.resolved.manifest.digest, sha256));
  expect(await readFile(join(root, "etc/passwd"), "utf8")).toStartWith("root:");
  expect(await readFile(join(root, "etc/motd"), "utf8")).toBe("hello");
});

test("building twice, also at the same time, gives the same index", async () => {
  const image = testImage([base, upper]);
  const built = await Promise.all([build(image), build(image), build(image)]);
  const again = await build(image);
  expect(new Set([...built, again].map(({ sha256 }) => sha256)).size).toBe(1);
  await store.openImage(image.resolved.manifest.digest, again.sha256);
});

test("a layer whose bytes are not the manifest's fails the build and leaves nothing behind", async () => {
  const image = testImage([base, upper]);
  const [first, second] = image.resolved.layers;
  const swapped = new Map(image.blobs).set(
    second?.digest ?? "",
    image.blobs.get(first?.digest ?? "") ?? new Uint8Array(),
  );
  const failure = await build(image, { source: new MemorySource(swapped) }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "digest_mismatch" });
  expect(await scratchLeft()).toEqual([]);
  expect(await store.list()).toEqual([]);
});

test("an indexer that answers for another layer is not believed", async () => {
  const image = testImage([base]);
  const other = testImage([upper]);
  const layer = other.resolved.layers[0];
  if (layer === undefined) throw new Error("the image has no layer");
  const wrong: IndexLayer = (_, __, out, signal) =>
    indexLayer(layer, new MemorySource(other.blobs).stream(layer, 0, signal), out, signal);
  const failure = await build(image, { indexLayer: wrong }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "digest_mismatch" });
});

test("a cancelled build says so, stops reading and leaves nothing behind", async () => {
  const image = testImage([base, upper]);
  const controller = new AbortController();
  const failure = await build(image, {
    signal: controller.signal,
    onProgress: () => controller.abort(),
  }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "cancelled" });
  expect(await scratchLeft()).toEqual([]);
  expect(await store.list()).toEqual([]);
});

test("no more layers than allowed are indexed at the same time, and the first failure stops the others", async () => {
  const image = testImage(
    Array.from({ length: 6 }, (_, at) => [{ path: `f${at}`, type: "file" as const, content: `${at}` }]),
  );
  let running = 0;
  let most = 0;
  let started = 0;
  const second = Promise.withResolvers<void>();
  const counting: IndexLayer = async (layer, bytes, out, signal) => {
    started += 1;
    running += 1;
    most = Math.max(most, running);
    if (started === 2) second.resolve();
    await second.promise;
    try {
      return await indexLayer(layer, bytes, out, signal);
    } finally {
      running -= 1;
    }
  };
  await build(image, { indexLayer: counting, concurrency: 2 });
  expect([most, started]).toEqual([2, 6]);
  const failing: IndexLayer = async () => {
    started += 1;
    throw new Error("the disk burns");
  };
  started = 0;
  const fresh = await IndexStore.open(bench.path("fresh"));
  expect(build(image, { store: fresh, indexLayer: failing, concurrency: 1 })).rejects.toThrow(
    "the disk burns",
  );
  await build(image, { store: fresh, indexLayer: failing, concurrency: 1 }).catch(() => undefined);
  expect(started).toBe(2);
});

test("what a killed build left is removed after a day, what a living one uses stays", async () => {
  const [left, used] = [bench.path("scratch/build-left"), bench.path("scratch/build-used")];
  for (const path of [left, used]) await mkdir(path, { recursive: true });
  const past = new Date(Date.now() - 25 * 60 * 60 * 1000);
  await utimes(left, past, past);
  await build(testImage([base]));
  expect(await scratchLeft()).toEqual(["build-used"]);
});

test("an image config that is not the manifest's is refused", async () => {
  const image = testImage([base]);
  const failure = await build(image, {
    resolved: { ...image.resolved, configBytes: Buffer.from("{}") },
  }).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "digest_mismatch" });
});

test("an image without layers is an empty tree", async () => {
  const image = testImage([]);
  const { index, sha256 } = await build(image);
  expect(index.inodes).toBe(1);
  expect(
    await readdir(await mount(image, await store.openImage(image.resolved.manifest.digest, sha256))),
  ).toEqual([]);
});

test("refuses an image whose layers together would take too much of a worker's memory", async () => {
  // Two layers, each with one span and the run of one file; the lower one has two files.
  const tableBytes = 2 * 144 + 3 * 24;
  const limits = { ...defaultIndexLimits, imageTableBytesMax: tableBytes - 1 };
  await expect(build(testImage([base, upper]), { limits })).rejects.toThrow("image_table_bytes_max");
  await build(testImage([base, upper]), { limits: { ...limits, imageTableBytesMax: tableBytes } });
});
