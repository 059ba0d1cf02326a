import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { type ChunkedFormat, chunkedLayer } from "../../src/index/chunked-layer.test-kit.ts";
import { OverlayOracle } from "../../src/index/overlay-oracle.test-kit.ts";
import { diffTrees } from "../../src/index/tree-diff.test-kit.ts";
import { run } from "../../src/std/spawn.ts";
import { cachedFolder } from "../kit/cache.ts";
import { debianImage } from "../kit/debian-image.ts";
import { type Layer, type LocalImage, readLayout, writeLayout } from "../kit/oci-layout.ts";
import { foldersOfAnyTime, oddImage, oddLayers } from "../kit/odd-image.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { StandaloneMount } from "../kit/standalone-mount.ts";
import { type TarEntry, tarOf } from "../kit/tar.ts";
import { inScratch } from "../kit/world.ts";

let registry: TestRegistry;
beforeAll(async () => {
  registry = await TestRegistry.start({ auth: "htpasswd" });
});
afterAll(async () => {
  await registry.stop();
});

/** Where the index stands of each layer that was made from a table that the layer brings. */
async function layersByTable(dir: string): Promise<number> {
  const names = await readdir(join(dir, "index/layers/sha256"));
  return names.filter((name) => name.includes(".")).length;
}

interface Packed {
  readonly image: LocalImage;
  /** How many layers are indexed by their own tables. */
  readonly byTable: number;
  /** Whether its manifest is Docker's. */
  readonly docker?: boolean;
}

interface Expected {
  /** The layers' archives, for the oracle. */
  readonly layers: readonly Uint8Array[];
  readonly anyTime: (path: string) => boolean;
}

/** Mounts images, reads all of each as it is fetched, and compares with what overlayfs shows of the layers unpacked. */
async function expectOverlay({ layers, anyTime }: Expected, ...images: readonly Packed[]): Promise<void> {
  await inScratch(async (dir) => {
    await mkdir(join(dir, "oracle"));
    const oracle = new OverlayOracle(join(dir, "oracle"));
    try {
      const expected = await oracle.unpack(layers);
      for (const [at, packed] of images.entries()) {
        await mkdir(join(dir, `${at}`));
        await expectMounted(packed, join(dir, `${at}`), expected, anyTime);
      }
    } finally {
      await oracle.close();
    }
  });
}

async function expectMounted(
  { image, byTable, docker = false }: Packed,
  dir: string,
  expected: string,
  anyTime: Expected["anyTime"],
): Promise<void> {
  const reference = await push(image, registry, "formats/tree:1", undefined, docker);
  const mount = new StandaloneMount(dir, registry);
  const result = await mount.up(reference, ["--index-only"]);
  expect(result.stderr).not.toContain("oci-node: ");
  expect(result.code).toBe(0);
  try {
    expect(await layersByTable(dir)).toBe(byTable);
    expect(await diffTrees(mount.target, expected, { anyTime })).toEqual([]);
  } finally {
    await mount.down();
  }
}

/** Folders whose times unpacking changes, too: a layer puts something into one of a lower layer and does not describe it. */
function folders(): ReadonlySet<string> {
  // Tar gives a folder its time when it leaves it; the lowest layer comes back to this one.
  const all = new Set([...foldersOfAnyTime(), "plain"]);
  for (const entries of oddLayers().slice(1)) {
    const paths = entries.map(({ path }) => path.toString().replace(/^\.\/|\/$/g, ""));
    for (const path of paths) {
      const folder = path.slice(0, Math.max(0, path.lastIndexOf("/")));
      if (!paths.includes(folder)) all.add(folder);
    }
  }
  return all;
}

const anyTimes = folders();
const odd = {
  layers: oddLayers().map((entries) => tarOf(entries)),
  anyTime: (path: string) => anyTimes.has(path),
};

/** What converters can write again: no sparse files, names that JSON can hold, times that eStargz's table can. */
function convertible(format: ChunkedFormat): TarEntry[][] {
  const isAscii = (value: string | Uint8Array) => Buffer.from(value).every((byte) => byte < 0x80);
  return oddLayers().map((entries) =>
    entries
      .filter(({ path, sparse }) => isAscii(path) && sparse === undefined)
      .map((entry) =>
        format === "estargz" && entry.mtime !== undefined && !/^-?\d+$/.test(entry.mtime)
          ? { ...entry, mtime: "1700000000" }
          : entry,
      ),
  );
}

async function chunkedImage(
  format: ChunkedFormat,
  layers: readonly (readonly TarEntry[])[],
): Promise<LocalImage> {
  const made = layers.map((entries): Layer => {
    const members = entries.map((entry) => tarOf([entry]).subarray(0, -1024));
    const { blob, annotations, tar } = chunkedLayer(format, members, { chunkBytes: 100_000 });
    const diffId = `sha256:${new Bun.CryptoHasher("sha256").update(tar).digest("hex")}`;
    return { compression: format === "estargz" ? "gzip" : "zstd", blob, diffId, annotations };
  });
  const key = made.map(({ diffId }) => diffId);
  const dir = await cachedFolder(`odd-${format}`, { version: 1, key }, async (beside) => {
    await writeLayout(beside, made, { Cmd: ["/bin/true"] });
  });
  return readLayout(dir);
}

/** The image with its layers compressed anew by skopeo, which writes zstd:chunked as podman and buildah do. */
async function recompressed(image: LocalImage, name: string): Promise<LocalImage> {
  const dir = await cachedFolder(name, { version: 1, from: image.manifestDigest }, async (beside) => {
    const compress = ["--dest-compress", "--dest-compress-format", "zstd:chunked"];
    const ways = [`oci:${image.dir}:latest`, `oci:${beside}:latest`];
    await run(["skopeo", "--insecure-policy", "copy", "--quiet", ...compress, ...ways], {
      timeoutMs: 300_000,
    });
  });
  return readLayout(dir);
}

describe("the mounted tree is what overlayfs shows of the layers unpacked", () => {
  test("of an image with everything that a layer may hold", async () => {
    await expectOverlay(odd, { image: await oddImage(), byTable: 0 });
  });

  test("of an image of Docker's media types, with layers of gzip and plain", async () => {
    await expectOverlay(odd, { image: await oddImage(["gzip", "none"]), byTable: 0, docker: true });
  });

  for (const format of ["estargz", "zstdChunked"] as const)
    test(`of an image of ${format}, indexed by its layers' own tables`, async () => {
      const layers = convertible(format);
      const image = await chunkedImage(format, layers);
      await expectOverlay({ ...odd, layers: layers.map((entries) => tarOf(entries)) }, { image, byTable: 3 });
    });

  test("of an image that is said to be zstd:chunked and has a name that its table cannot hold", async () => {
    const layers = oddLayers().map((entries) => entries.filter(({ sparse }) => sparse === undefined));
    const image = await chunkedImage("zstdChunked", layers);
    await expectOverlay({ ...odd, layers: layers.map((entries) => tarOf(entries)) }, { image, byTable: 2 });
  });

  test("of an image of Debian packages, and of the same as skopeo makes zstd:chunked of it", async () => {
    const image = await debianImage();
    const layers = await Promise.all(
      image.layers.map(async ({ digest }): Promise<Uint8Array> => {
        const blob = join(image.dir, "blobs/sha256", digest.slice("sha256:".length));
        return gunzipSync(await readFile(blob));
      }),
    );
    // Nothing is left out: a layer that changes a directory describes it, as builders' layers do.
    const chunked = await recompressed(image, "debian-chunked");
    await expectOverlay(
      { layers, anyTime: () => false },
      { image, byTable: 0 },
      { image: chunked, byTable: layers.length },
    );
  }, 240_000);
});
