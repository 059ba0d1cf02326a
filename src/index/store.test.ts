import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdir, readdir, readFile, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MemorySource, type TestImage, testImage } from "./image-index.test-kit.ts";
import { type BuiltImageIndex, buildImageIndex } from "./image-index.ts";
import { indexLayerStream } from "./layer-index.ts";
import { defaultIndexLimits } from "./limits.ts";
import { IndexStore } from "./store.ts";
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

const shared: TestLayer = [{ path: "shared", type: "file", content: "s" }];
const own = (name: string): TestLayer => [{ path: name, type: "file", content: name }];

async function build(image: TestImage): Promise<BuiltImageIndex & { digest: string }> {
  const built = await buildImageIndex({
    repository: "example.test/app",
    resolved: image.resolved,
    source: new MemorySource(image.blobs),
    store,
    scratchDir: bench.path("scratch"),
    indexLayer: (layer, bytes, out, signal) =>
      indexLayerStream(layer, bytes, out, defaultIndexLimits, signal),
    signal: new AbortController().signal,
  });
  return { ...built, digest: image.resolved.manifest.digest };
}

const failureOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "no failure",
    (error: unknown) => error,
  );
const layersFolder = () => bench.path("store/layers/sha256");
const imagesFolder = () => bench.path("store/images/sha256");

async function age(path: string): Promise<void> {
  const past = new Date(Date.now() - 2 * 60 * 60 * 1000);
  await utimes(path, past, past);
}

test("an image that was never built is not found", async () => {
  const digest = `sha256:${"0".repeat(64)}`;
  expect(await failureOf(store.openImage(digest))).toMatchObject({ code: "not_found" });
  expect(await failureOf(store.openImage(digest, "1".repeat(64)))).toMatchObject({ code: "not_found" });
  expect(await store.hasLayer({ digest })).toBe(false);
});

test("names that are no digests never become paths", async () => {
  for (const name of ["../../etc/passwd", "sha256:../../x", "", `sha256:${"A".repeat(64)}`]) {
    expect(() => store.layerPaths({ digest: name })).toThrow("is no digest");
    expect(await failureOf(store.openImage(name))).toMatchObject({ code: "not_found" });
  }
  expect(await failureOf(store.openImage(`sha256:${"0".repeat(64)}`, "../x"))).toMatchObject({
    code: "not_found",
  });
});

test("without a hash the latest index of the manifest is opened", async () => {
  const image = testImage([shared]);
  const { digest, sha256, index } = await build(image);
  const opened = await store.openImage(digest);
  expect([opened.sha256, opened.index]).toEqual([sha256, index]);
});

for (const [what, damage] of [
  ["cut off", (path: string) => truncate(path, 100)],
  ["emptied", (path: string) => truncate(path, 0)],
  ["removed", (path: string) => rm(path)],
  ["changed in one byte", flipOneByte],
] as const) {
  test(`each file that was ${what} is named, and a new build puts it right`, async () => {
    const image = testImage([shared, own("a")]);
    const { digest, sha256, index } = await build(image);
    const folder = join(imagesFolder(), (await readdir(imagesFolder()))[0] ?? "");
    const spans = store.layerPaths({ digest: index.layers[1]?.digest ?? "" }).spanPath;
    for (const path of [join(folder, "image.json"), join(folder, "erofs"), spans]) {
      await store.openImage(digest, sha256);
      await damage(path);
      const failure = await failureOf(store.openImage(digest, sha256));
      expect(failure).toMatchObject({ code: "corrupt_index", next: "Build the image again." });
      expect(String(failure)).toContain(path);
      expect((await build(image)).sha256).toBe(sha256);
    }
    const toc = store.layerPaths({ digest: index.layers[0]?.digest ?? "" }).tocPath;
    await damage(toc);
    expect(await store.hasLayer({ digest: index.layers[0]?.digest ?? "" })).toBe(false);
    expect((await build(image)).sha256).toBe(sha256);
    await store.openImage(digest, sha256);
  });
}

async function flipOneByte(path: string): Promise<void> {
  const bytes = await readFile(path);
  const middle = Math.floor(bytes.length / 2);
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  await writeFile(path, bytes);
}

test("another process sees what was stored, and reads it", async () => {
  const { digest, sha256 } = await build(testImage([shared]));
  const other = await IndexStore.open(bench.path("store"));
  expect((await other.openImage(digest, sha256)).sha256).toBe(sha256);
});

test("removing an image removes the layers that only it named, once they are old", async () => {
  const [one, two] = [
    await build(testImage([shared, own("one")])),
    await build(testImage([shared, own("two")])),
  ];
  for (const name of await readdir(layersFolder())) await age(join(layersFolder(), name));
  await store.removeImage(one.digest);
  expect((await store.list()).map(({ sha256 }) => sha256)).toEqual([two.sha256]);
  const kept = two.index.layers.map(({ digest }) => digest.slice(7)).sort();
  expect((await readdir(layersFolder())).sort()).toEqual(kept);
  await store.openImage(two.digest, two.sha256);
  expect(await failureOf(store.openImage(one.digest, one.sha256))).toMatchObject({ code: "not_found" });
});

test("a layer that a build used within the last hour is kept though no image names it", async () => {
  const one = await build(testImage([shared]));
  const layer = one.index.layers[0]?.digest ?? "";
  await age(join(layersFolder(), layer.slice(7)));
  expect(await store.hasLayer({ digest: layer })).toBe(true);
  await store.removeImage(one.digest);
  expect(await store.hasLayer({ digest: layer })).toBe(true);
});

test("an index whose layer went away is not stored", async () => {
  const image = testImage([shared, own("a")]);
  const { index, digest, sha256 } = await build(image);
  const opened = await store.openImage(digest, sha256);
  const copy = bench.path("erofs-copy");
  await writeFile(copy, await readFile(opened.erofsPath));
  await rm(join(layersFolder(), index.layers[0]?.digest.slice(7) ?? ""), { recursive: true });
  const failure = await failureOf(store.putImage({ ...index, repository: "other.test/app" }, copy));
  expect(failure).toMatchObject({ code: "corrupt_index" });
  expect((await store.list()).map(({ index: { repository } }) => repository)).toEqual(["example.test/app"]);
});

test("an EROFS image that is not the one that the index names is not stored", async () => {
  const { index } = await build(testImage([shared]));
  const wrong = bench.path("wrong");
  await writeFile(wrong, "not an image");
  expect(await failureOf(store.putImage(index, wrong))).toMatchObject({ code: "corrupt_index" });
});

test("what interrupted writers left is removed when it is old, and never taken for an image", async () => {
  const left = join(imagesFolder(), `${"0".repeat(64)}-${"1".repeat(64)}.tmp-0123`);
  const fresh = join(layersFolder(), `${"2".repeat(64)}.tmp-4567`);
  await mkdir(left);
  await mkdir(fresh);
  await age(left);
  expect(await store.list()).toEqual([]);
  await IndexStore.open(bench.path("store"));
  expect(await readdir(imagesFolder())).toEqual([]);
  expect((await readdir(layersFolder())).length).toBe(1);
});

test("an index with a field too many is refused even when its hash is right", async () => {
  const { digest, sha256, index } = await build(testImage([shared]));
  const text = JSON.stringify({ ...index, extra: true });
  const hash = new Bun.CryptoHasher("sha256").update(text).digest("hex");
  const folder = join(imagesFolder(), `${digest.slice(7)}-${hash}`);
  await mkdir(folder);
  await writeFile(join(folder, "image.json"), text);
  await writeFile(
    join(folder, "erofs"),
    await readFile(join(imagesFolder(), `${digest.slice(7)}-${sha256}`, "erofs")),
  );
  expect(await failureOf(store.openImage(digest, hash))).toMatchObject({ code: "corrupt_index" });
});
