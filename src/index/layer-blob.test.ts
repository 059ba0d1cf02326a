import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { run } from "../std/spawn.ts";
import { checkLayer, chunksOf, failureOf, indexBytes, ociTar, sha256 } from "./layer.test-kit.ts";
import { type BlobPlace, LayerBlobWriter } from "./layer-blob.ts";
import { indexLayerStream } from "./layer-index.ts";
import { defaultIndexLimits } from "./limits.ts";
import { type KitMember, makeTar, SeededRandom } from "./tar.test-kit.ts";

let directory: string;
let place: BlobPlace;
let out: { spanPath: string; tocPath: string; blob: BlobPlace };
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-blob-"));
  place = { path: join(directory, "blob"), sizeBytesMax: 2 ** 40, freeBytesMin: 0 };
  out = { spanPath: join(directory, "span"), tocPath: join(directory, "toc"), blob: place };
});
afterEach(async () => {
  for (const name of await readdir(directory)) await rm(join(directory, name));
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

const random = new SeededRandom(23);

/** A file of `realSize` bytes with data at these places only, as GNU tar's format 1.0 has it. */
function sparseFile(
  name: string,
  realSize: number,
  places: readonly (readonly [number, number])[],
): KitMember {
  const map = `${places.length}\n${places.map(([at, length]) => `${at}\n${length}\n`).join("")}`;
  const head = Buffer.alloc(Math.ceil(map.length / 512) * 512);
  head.write(map);
  const data = Buffer.concat([head, ...places.map(([, length]) => random.bytes(length))]);
  const pax: [string, string][] = [
    ["GNU.sparse.major", "1"],
    ["GNU.sparse.minor", "0"],
    ["GNU.sparse.name", name],
    ["GNU.sparse.realsize", String(realSize)],
  ];
  return { name: `GNUSparseFile.0/${name}`, data, pax };
}

/** Files of all sizes about a block and a buffer, empty ones, links, a sparse file, and zeros. */
function members(): KitMember[] {
  const sizes = [0, 1, 511, 4095, 4096, 4097, 0, 70_000, 3, 1024 * 1024 - 1, 1024 * 1024, 3_000_001, 12];
  return [
    { name: "etc/", type: "5" },
    ...sizes.map((size, at) => ({ name: `etc/${at}`, data: random.bytes(size) })),
    { name: "etc/hard", type: "1", link: "etc/3" },
    { name: "etc/soft", type: "2", link: "3" },
    sparseFile("holes", 50_000_000, [
      [10, 5],
      [4096, 4096],
      [9_000, 100],
      [40_000_000, 2_000_001],
    ]),
    { name: "zeros", data: Buffer.alloc(6_000_000) },
    ...Array.from({ length: 300 }, (_, at) => ({
      name: `small/${at}`,
      data: random.bytes(random.next(9000)),
    })),
  ];
}

const tar = makeTar(members());

async function zstd(bytes: Buffer): Promise<Buffer> {
  const child = Bun.spawn(["zstd", "-q", "-c"], { stdin: bytes, stdout: "pipe" });
  return Buffer.from(await new Response(child.stdout).arrayBuffer());
}

/** A writer that was given three megabytes. */
function filled(where: BlobPlace): LayerBlobWriter {
  const writer = LayerBlobWriter.create(where);
  writer.addExtent(0, 0, 3_000_000);
  writer.write(0, random.bytes(3_000_000));
  return writer;
}

function indexStream(
  layer: Buffer,
  bytes: AsyncIterable<Uint8Array>,
  blob: BlobPlace = place,
  signal?: AbortSignal,
) {
  const what = { digest: `sha256:${sha256(layer)}`, size: layer.length, mediaType: `${ociTar}+gzip` };
  return indexLayerStream(
    what,
    bytes,
    { ...out, blob },
    defaultIndexLimits,
    signal ?? new AbortController().signal,
  );
}

describe("the blob that indexing writes is the one that the span file describes", () => {
  test.each(["gzip", "none", "zstd"])("of a layer compressed by %s", async (compression) => {
    const layer = compression === "gzip" ? gzipSync(tar) : compression === "zstd" ? await zstd(tar) : tar;
    const indexed = await indexBytes(layer, out, { chunkBytes: 65_521 });
    const { blob } = await checkLayer(layer, tar, out, indexed);
    expect((await readFile(place.path)).equals(blob)).toBe(true);
    // Neither holes nor zeros take room: 57 MB of the 65 MB are one or the other.
    expect((await stat(place.path)).blocks * 512).toBeLessThan(12_000_000);
  });

  test("of a layer that comes in pieces of a few bytes", async () => {
    const small = makeTar(members().filter(({ data }) => (data?.length ?? 0) < 5000));
    const layer = gzipSync(small);
    const indexed = await indexBytes(layer, out, { chunkBytes: 7 });
    const { blob } = await checkLayer(layer, small, out, indexed);
    expect((await readFile(place.path)).equals(blob)).toBe(true);
  });

  test("of a layer without any file's bytes", async () => {
    const empty = makeTar([{ name: "a/", type: "5" }, { name: "a/b" }]);
    await indexBytes(gzipSync(empty), out);
    expect((await stat(place.path)).size).toBe(0);
  });
});

describe("a blob that cannot be kept", () => {
  test("is given up at its limit, and the layer is indexed all the same", async () => {
    const layer = gzipSync(tar);
    const limited = { ...out, blob: { ...place, sizeBytesMax: 1_500_000 } };
    await checkLayer(layer, tar, limited, await indexBytes(layer, limited));
    expect((await readdir(directory)).sort()).toEqual(["span", "toc"]);
  });

  test("is given up at its limit when it is all single bytes, each of which takes a block", async () => {
    const dots = sparseFile(
      "dots",
      50_000_000,
      Array.from({ length: 2000 }, (_, at) => [at * 20_000, 1] as const),
    );
    const layer = gzipSync(makeTar([dots]));
    await indexBytes(layer, { ...out, blob: { ...place, sizeBytesMax: 2001 * 4096 } });
    expect(await readdir(directory)).toContain("blob");
    await indexBytes(layer, { ...out, blob: { ...place, sizeBytesMax: 1900 * 4096 } });
    expect(await readdir(directory)).not.toContain("blob");
  });

  test("is given up when too little would stay free on the disk", () => {
    const writer = filled({ ...place, freeBytesMin: 2 ** 60 });
    expect(writer.finish(3_002_368)).toBe(false);
    expect(writer.problem).toMatch(/free/);
  });

  test("is given up when the disk is full, and takes no room there", async () => {
    const disk = join(directory, "disk");
    await mkdir(disk);
    await run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]);
    try {
      const writer = filled({ ...place, path: join(disk, "blob") });
      expect(writer.finish(3_002_368)).toBe(false);
      expect(writer.problem).toBe("no space is left on the disk");
      expect(await readdir(disk)).toEqual([]);
    } finally {
      await run(["umount", disk]);
      await rm(disk, { recursive: true });
    }
  });

  test("is given up when its folder is gone", () => {
    const writer = filled({ ...place, path: join(directory, "missing", "blob") });
    expect(writer.finish(3_002_368)).toBe(false);
    expect(writer.problem).toMatch(/no such file/i);
  });

  test.each([
    ["that breaks", Buffer.concat([gzipSync(tar).subarray(0, 500_000), Buffer.alloc(500_000, 1)])],
    ["that ends early", gzipSync(tar).subarray(0, -20)],
  ])("leaves nothing of a layer %s", async (_, layer) => {
    expect((await failureOf(indexStream(layer, chunksOf(layer)))).code).toBe("bad_layer");
    expect(await readdir(directory)).toEqual([]);
  });

  test("leaves nothing of a layer with another digest, or of one that was cancelled", async () => {
    const layer = gzipSync(tar);
    const other = await failureOf(indexStream(Buffer.alloc(layer.length), chunksOf(layer)));
    expect(other.code).toBe("digest_mismatch");
    expect(await readdir(directory)).toEqual([]);
    const abort = new AbortController();
    const half = (async function* () {
      yield layer.subarray(0, layer.length / 2);
      expect(await readdir(directory)).toContain("blob");
      abort.abort();
      await new Promise(() => {});
    })();
    expect((await failureOf(indexStream(layer, half, place, abort.signal))).code).toBe("cancelled");
    expect(await readdir(directory)).toEqual([]);
  });
});
