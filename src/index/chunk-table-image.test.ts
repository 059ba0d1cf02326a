import { afterEach, beforeEach, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { RegistryError } from "../registry/error.ts";
import { type ChunkedFormat, chunkedLayer } from "./chunked-layer.test-kit.ts";
import { imageOfBlobs, MemorySource, type TestImage } from "./image-index.test-kit.ts";
import { type BuildImageIndexOptions, type BuiltImageIndex, buildImageIndex } from "./image-index.ts";
import { ociTar } from "./layer.test-kit.ts";
import { indexLayerStream } from "./layer-index.ts";
import { openToc } from "./layer-toc.ts";
import { defaultIndexLimits } from "./limits.ts";
import { IndexStore } from "./store.ts";
import { SeededRandom } from "./tar.test-kit.ts";
import { type TestLayer, tarTestLayer } from "./tree-layers.test-kit.ts";
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

const noise = new SeededRandom(8);
const layer: TestLayer = [
  { path: "bin", type: "dir" },
  ...Array.from({ length: 8 }, (_, at) => ({
    path: `bin/${at}`,
    type: "file" as const,
    content: Buffer.from(Array.from({ length: 300_000 }, () => noise.next(256))),
  })),
];

function image(
  format: ChunkedFormat,
  change: (annotations: Record<string, string>) => void = () => {},
): TestImage {
  const made = chunkedLayer(
    format,
    layer.map((entry) => tarTestLayer([entry]).subarray(0, -1024)),
  );
  const annotations = { ...made.annotations };
  change(annotations);
  const mediaType = `${ociTar}+${format === "estargz" ? "gzip" : "zstd"}`;
  return imageOfBlobs([{ bytes: made.blob, mediaType, annotations }]);
}

function build(from: TestImage, more: Partial<BuildImageIndexOptions> = {}): Promise<BuiltImageIndex> {
  return buildImageIndex({
    repository: "example.test/team/app",
    resolved: from.resolved,
    source: new MemorySource(from.blobs),
    store,
    scratchDir: bench.path("scratch"),
    indexLayer: (one, bytes, out, signal) => indexLayerStream(one, bytes, out, defaultIndexLimits, signal),
    signal: new AbortController().signal,
    ...more,
  });
}

/** A manifest that names another table than the layer's own. */
const forge = (annotations: Record<string, string>): void => {
  for (const key of Object.keys(annotations))
    if (annotations[key]?.startsWith("sha256:")) annotations[key] = `sha256:${"a".repeat(64)}`;
};

for (const format of ["estargz", "zstdChunked"] as const) {
  test(`an image of ${format} is indexed by its table, without its layers`, async () => {
    const made = image(format);
    const source = new MemorySource(made.blobs);
    const { index, sha256 } = await build(made, { source });
    const size = made.resolved.layers[0]?.size ?? 0;
    expect(source.stats().requests).toBe(1);
    expect(source.stats().bytes).toBeLessThan(size / 4);
    expect(Object.values(made.resolved.layers[0]?.annotations ?? {})).toContain(
      index.layers[0]?.tocDigest ?? "",
    );
    const opened = await store.openImage(made.resolved.manifest.digest, sha256);
    expect(opened.layers[0]?.spanSha256).toBe(index.layers[0]?.spanSha256 ?? "");
    // A second build finds it.
    const again = new MemorySource(made.blobs);
    expect((await build(made, { source: again })).sha256).toBe(sha256);
    expect(again.stats().requests).toBe(0);
  });

  test(`an image of ${format} whose table is not the one of its manifest is read as a whole`, async () => {
    const made = image(format, forge);
    const { index } = await build(made);
    expect(index.layers[0]?.tocDigest).toBeUndefined();
    expect(index.layers[0]?.entries).toBe(layer.length);
    expect(await readdir(bench.path("scratch"))).toEqual([]);
  });
}

test("a registry without ranges gives the layer as a whole", async () => {
  class NoRanges extends MemorySource {
    override read(): Promise<Uint8Array> {
      const where = { registry: "example.test", repository: "team/app" };
      return Promise.reject(new RegistryError("range_unsupported", "no ranges", where));
    }
  }
  const made = image("estargz");
  const { index } = await build(made, { source: new NoRanges(made.blobs) });
  expect(index.layers[0]?.tocDigest).toBeUndefined();
  expect(index.layers[0]?.entries).toBe(layer.length);
});

test("what a registry refuses is not hidden by reading the layer as a whole", async () => {
  class Refusing extends MemorySource {
    override read(): Promise<Uint8Array> {
      const where = { registry: "example.test", repository: "team/app" };
      return Promise.reject(new RegistryError("unauthorized", "no", where));
    }
  }
  const made = image("estargz");
  await expect(build(made, { source: new Refusing(made.blobs) })).rejects.toThrow("no");
});

test("whoever pushes a manifest with a table of their own changes nobody else's image of the same layer", async () => {
  const honest = image("zstdChunked");
  const digest = honest.resolved.layers[0]?.digest ?? "";
  // Another registry answers for the honest layer's digest with a layer of its own, whose table the manifest names.
  const evil = chunkedLayer("zstdChunked", [
    tarTestLayer([{ path: "bin/0", type: "file", content: "evil", mode: 0o4755 }]).subarray(0, -1024),
  ]);
  const forged: TestImage = {
    ...honest,
    blobs: new Map([[digest, Buffer.concat([evil.blob, Buffer.alloc(3_000_000)])]]),
    resolved: {
      ...honest.resolved,
      layers: honest.resolved.layers.map((one) => ({ ...one, annotations: evil.annotations })),
    },
  };
  const theirs = await build(forged);
  expect(theirs.index.layers[0]?.entries).toBe(1);
  for (const made of [honest, { ...honest, resolved: { ...honest.resolved, layers: plain(honest) } }]) {
    const { index } = await build(made);
    expect(index.layers[0]?.entries).toBe(layer.length);
    const name = { digest, tocDigest: index.layers[0]?.tocDigest };
    expect([...openToc(store.layerPaths(name).tocPath)][1]?.mode).toBe(0o644);
  }
});

const plain = ({ resolved }: TestImage) => resolved.layers.map((one) => ({ ...one, annotations: {} }));
