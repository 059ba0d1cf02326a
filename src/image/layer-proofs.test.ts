import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { cp, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { configure, type LogRecord, reset } from "@logtape/logtape";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { layers } from "../db/schema.ts";
import { chunkedLayer } from "../index/chunked-layer.test-kit.ts";
import { imageOfBlobs, type TestImage, testImage } from "../index/image-index.test-kit.ts";
import { type BuiltImageIndex, buildImageIndex } from "../index/image-index.ts";
import { ociTar } from "../index/layer.test-kit.ts";
import { indexLayerStream } from "../index/layer-index.ts";
import { defaultIndexLimits } from "../index/limits.ts";
import { type MergeImage, mergeImage } from "../index/merge-image.ts";
import { IndexStore } from "../index/store.ts";
import { tarTestLayer } from "../index/tree-layers.test-kit.ts";
import { repositoryAt } from "../registry/quirks.test-kit.ts";
import {
  type RawReply,
  type RawServer,
  rangeReply,
  startRawServer,
} from "../registry/raw-server.test-kit.ts";
import { provedBlobSource } from "../registry/repository.ts";
import { layerProofs } from "./layer-proofs.ts";
import { LayerStore } from "./layer-store.ts";

let server: TestPostgres;
let store: IndexStore;
let dir: string;
let image: TestImage;
let records: LogRecord[] = [];
const ended: (() => Promise<void>)[] = [];
let serial = 0;

beforeAll(async () => {
  server = await startTestPostgres();
  await configure({
    reset: true,
    sinks: { memory: (record) => void records.push(record) },
    loggers: [
      { category: ["oci-node"], lowestLevel: "debug", sinks: ["memory"] },
      { category: ["logtape", "meta"], lowestLevel: "error", sinks: [] },
    ],
  });
}, 60_000);
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-proofs-"));
  store = await IndexStore.open(join(dir, "store"));
  // Another one for each test: the database is one for all.
  serial += 1;
  image = testImage([
    [
      { path: "etc", type: "dir" },
      { path: "etc/base", type: "file", content: `base ${serial}`.repeat(900) },
    ],
    [{ path: "etc/secret", type: "file", content: `A's own ${serial}`.repeat(900) }],
  ]);
  records = [];
});
afterEach(async () => {
  for (const end of ended.splice(0)) await end();
  await rm(dir, { recursive: true, force: true });
});
afterAll(async () => {
  await reset();
  await server.end();
}, 60_000);

/** What a registry answers to a request for a blob that it has. */
type Answer = (digest: string, method: string) => RawReply | undefined;

/** A registry of somebody's, which says of blobs what he wants; by default it has all of the image's. */
async function registry(answer: Answer = () => undefined): Promise<RawServer> {
  const started = await startRawServer((request) => {
    const digest = request.url.pathname.split("/").at(-1) ?? "";
    const bytes = image.blobs.get(digest) ?? new Uint8Array();
    return answer(digest, request.method) ?? rangeReply(request, bytes);
  });
  ended.push(() => started.stop());
  return started;
}

function build(
  { host }: RawServer,
  into = store,
  mirror?: RawServer,
  merge: MergeImage = mergeImage,
): Promise<BuiltImageIndex> {
  const mirrors = mirror && new Map([[host, [{ url: new URL(`http://${mirror.host}`), namespaced: false }]]]);
  const repository = repositoryAt(host, mirrors && { policy: { mirrors } });
  return buildImageIndex({
    repository: `${host}/acme/app`,
    resolved: image.resolved,
    source: provedBlobSource(repository),
    proofs: layerProofs(new LayerStore(server.database), repository),
    store: into,
    mergeImage: merge,
    scratchDir: join(dir, "scratch"),
    indexLayer: (layer, bytes, out, signal) =>
      indexLayerStream(layer, bytes, out, defaultIndexLimits, signal),
    signal: new AbortController().signal,
  });
}

const downloads = (of: RawServer): string[] =>
  of
    .lines()
    .filter((line) => line.startsWith("GET "))
    .sort();
const everyLayer = (): string[] =>
  [...image.blobs.keys()].map((digest) => `GET /v2/acme/app/blobs/${digest}`).sort();
const absent: RawReply = { status: 404 };

describe("a layer that somebody's build has indexed", () => {
  test("is no other's for its digest alone: a registry that lacks the bytes gets no image of it", async () => {
    await build(await registry());
    const liar = await registry((digest, method) =>
      method === "HEAD"
        ? { status: 200, headers: { "content-length": `${image.blobs.get(digest)?.length}` } }
        : absent,
    );
    await expect(build(liar)).rejects.toMatchObject({ code: "not_found" });
  });

  test("is read whole from another registry that has it, once", async () => {
    await build(await registry());
    const another = await registry();
    await build(another);
    expect(downloads(another)).toEqual(everyLayer());
    await build(another);
    expect(downloads(another)).toEqual(everyLayer());
  });

  test("is not read again from the registry that gave it before and says that the repository has it", async () => {
    const same = await registry();
    const first = await build(same);
    expect(await build(same)).toEqual(first);
    expect(downloads(same)).toEqual(everyLayer());
  });

  test("is refused where that registry says that the repository does not have it", async () => {
    let has = true;
    const same = await registry(() => (has ? undefined : absent));
    await build(same);
    has = false;
    await expect(build(same)).rejects.toMatchObject({ code: "not_found" });
  });

  test("counts as had where a HEAD says nothing and its first byte is given", async () => {
    const same = await registry((_, method) => (method === "HEAD" ? { status: 405 } : undefined));
    await build(same);
    await build(same);
    const whole = same.requests.filter(({ method, headers }) => method === "GET" && !headers.has("range"));
    expect(whole.length).toBe(image.blobs.size);
    expect(downloads(same).length).toBe(2 * image.blobs.size);
  });

  test("does not count as had for an answer of another size, as a page to log in at is", async () => {
    const same = await registry((_, method) =>
      method === "HEAD" ? { status: 200, headers: { "content-length": "17" } } : undefined,
    );
    await build(same);
    await build(same);
    expect(downloads(same).length).toBe(2 * image.blobs.size);
  });

  test("is no one's who reads it from a mirror alone: the registry is asked, or gives it", async () => {
    const mirror = await registry();
    const lacking = await registry(() => absent);
    await expect(build(lacking, store, mirror)).rejects.toMatchObject({ code: "not_found" });
    await build(await registry(), store, mirror);
    expect(mirror.lines().length).toBeGreaterThan(0);
  });
});

describe("a layer that brings its own table of contents", () => {
  beforeEach(() => {
    const members = image.resolved.layers.map((_, at) =>
      tarTestLayer([{ path: `f${at}`, type: "file", content: `${serial}`.repeat(200_000) }]).subarray(
        0,
        -1024,
      ),
    );
    const { blob, annotations } = chunkedLayer("estargz", members);
    image = imageOfBlobs([{ bytes: blob, mediaType: `${ociTar}+gzip`, annotations }]);
  });

  test("is indexed by it where the registry says that it has the layer, and told from other registries'", async () => {
    const [one, two] = [await registry(), await registry()];
    const [first, second] = [(await build(one)).index.layers[0], (await build(two)).index.layers[0]];
    expect([first?.registry, second?.registry]).toEqual([one.host, two.host]);
    expect(first?.tocDigest).toBeString();
    expect({ ...first, registry: "" }).toEqual({ ...second, registry: "" });
  });

  test("is read as a whole where the registry does not say so", async () => {
    const silent = await registry((_, method) =>
      method === "HEAD" ? { status: 200, headers: { "content-length": "17" } } : undefined,
    );
    const [layer] = (await build(silent)).index.layers;
    expect([layer?.tocDigest, layer?.registry]).toEqual([undefined, undefined]);
    expect(downloads(silent)).toEqual(everyLayer());
  });

  test("is indexed anew each time: what stands in the store is replaced where it is not the same", async () => {
    const same = await registry();
    const first = await build(same);
    const [layer] = first.index.layers;
    const { tocPath } = store.layerPaths({ digest: layer?.digest ?? "", tocDigest: layer?.tocDigest });
    const facts = join(dirname(tocPath), "layer.json");
    const forged = { ...JSON.parse(await readFile(facts, "utf8")), entries: 1 };
    await writeFile(facts, JSON.stringify(forged));
    expect(await build(same)).toEqual(first);
    expect(JSON.parse(await readFile(facts, "utf8")).entries).toBe(layer?.entries);
  });
});

describe("an index store that others can write", () => {
  const layerFolder = (at: number): string =>
    dirname(store.layerPaths({ digest: image.resolved.layers[at]?.digest ?? "" }).spanPath);

  /** Builds, has the store changed, and builds again, by a process that knows nothing of the first. */
  async function afterwards(change: () => Promise<void>): Promise<void> {
    const same = await registry();
    const first = await build(same);
    const read = downloads(same).length;
    await change();
    const again = await IndexStore.open(join(dir, "store"));
    expect(await build(same, again)).toEqual(first);
    expect(downloads(same).length).toBeGreaterThan(read);
    await again.openImage(image.resolved.manifest.digest, first.sha256);
    const written = downloads(same).length;
    await build(same, again);
    expect(downloads(same).length).toBe(written);
  }

  async function flipBit(path: string): Promise<void> {
    const bytes = await readFile(path);
    const at = Math.floor(bytes.length / 2);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    await writeFile(path, bytes);
  }

  for (const file of ["spans", "toc", "layer.json"])
    test(`changes nothing with a flipped bit in ${file}`, () =>
      afterwards(() => flipBit(join(layerFolder(1), file))));

  for (const file of ["image.json", "erofs"])
    test(`runs nothing with a flipped bit in ${file}, until it is built again`, async () => {
      const same = await registry();
      const { digest } = image.resolved.manifest;
      const { sha256 } = await build(same);
      const folder = dirname((await store.openImage(digest, sha256)).erofsPath);
      await flipBit(join(folder, file));
      await expect(store.openImage(digest, sha256)).rejects.toMatchObject({ code: "corrupt_index" });
      await build(same);
      expect(await store.openImage(digest, sha256)).toMatchObject({ sha256 });
    });

  test("changes nothing with the folders of two layers swapped", () =>
    afterwards(async () => {
      await rename(layerFolder(0), join(dir, "aside"));
      await rename(layerFolder(1), layerFolder(0));
      await rename(join(dir, "aside"), layerFolder(1));
    }));

  test("changes nothing with an index that is sound in itself, and of another layer's tree; that is told", async () => {
    await afterwards(async () => {
      const [at, from] = [layerFolder(1), layerFolder(0)];
      await cp(join(from, "toc"), join(at, "toc"));
      const facts = JSON.parse(await readFile(join(at, "layer.json"), "utf8"));
      const { tocSha256 } = JSON.parse(await readFile(join(from, "layer.json"), "utf8"));
      await writeFile(join(at, "layer.json"), JSON.stringify({ ...facts, tocSha256 }));
    });
    const told = records
      .filter(({ level }) => level === "warning")
      .map(({ properties }) => properties["layer"]);
    expect(told).toEqual([image.resolved.layers[1]?.digest]);
  });

  test("changes nothing between the look at a layer and its use", async () => {
    const same = await registry();
    const first = await build(same);
    const late: MergeImage = async (request, signal) => {
      await cp(join(layerFolder(0), "toc"), join(layerFolder(1), "toc"));
      return await mergeImage(request, signal);
    };
    await expect(build(same, store, undefined, late)).rejects.toMatchObject({ code: "corrupt_index" });
    expect(await build(same)).toEqual(first);
  });

  test("is believed in nothing that was written before its hashes were kept", () =>
    afterwards(async () => {
      await server.database.query((db) => db.update(layers).set({ factsSha256: null }));
    }));
});
