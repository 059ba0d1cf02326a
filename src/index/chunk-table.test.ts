import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LayerBlob } from "../native/blob.ts";
import { Engine } from "../native/engine.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { chunkTableDigest, findChunkTable } from "./chunk-table.ts";
import { EntryCutter } from "./chunk-table-json.ts";
import {
  type ChunkedFormat,
  type ChunkedLayer,
  type ChunkedOptions,
  chunkedLayer,
} from "./chunked-layer.test-kit.ts";
import { IndexError } from "./error.ts";
import { imageOfBlobs, MemorySource } from "./image-index.test-kit.ts";
import { failureOf, ociTar } from "./layer.test-kit.ts";
import { indexLayerStream, type LayerIndexFiles } from "./layer-index.ts";
import { openToc } from "./layer-toc.ts";
import { defaultIndexLimits, type IndexLimits } from "./limits.ts";
import { SeededRandom } from "./tar.test-kit.ts";
import { type TestLayer, tarTestLayer } from "./tree-layers.test-kit.ts";
import { randomLayers } from "./tree-random.test-kit.ts";
import type { TocEntry } from "./types.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-chunks-"));
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

const signal = new AbortController().signal;
const formats: readonly ChunkedFormat[] = ["estargz", "zstdChunked"];
const types = { estargz: `${ociTar}+gzip`, zstdChunked: `${ociTar}+zstd` };

const make = (format: ChunkedFormat, layer: TestLayer, options: ChunkedOptions = {}): ChunkedLayer =>
  chunkedLayer(
    format,
    layer.map((entry) => tarTestLayer([entry]).subarray(0, -1024)),
    options,
  );

function registered(format: ChunkedFormat, { blob, annotations }: ChunkedLayer) {
  const image = imageOfBlobs([{ bytes: blob, mediaType: types[format], annotations }]);
  return { layer: image.resolved.layers[0] as Descriptor, source: new MemorySource(image.blobs, 50_000) };
}

function files(name: string): LayerIndexFiles {
  return { spanPath: join(directory, `${name}.spans`), tocPath: join(directory, `${name}.toc`) };
}

async function byTable(layer: Descriptor, source: MemorySource, limits: Partial<IndexLimits> = {}) {
  const all = { ...defaultIndexLimits, ...limits };
  const { table, bytes } = await findChunkTable(layer, source, all, signal);
  return await indexLayerStream({ ...layer, chunkTable: table }, bytes, files("table"), all, signal);
}

/** The blob that the spans of an index give, as the engine fills it from the layer's bytes. */
async function blobOf(name: string, layer: Buffer): Promise<Buffer> {
  const cachePath = join(directory, `${name}.blob`);
  const blob = LayerBlob.open({
    spanPath: files(name).spanPath,
    cachePath,
    mapPath: join(directory, `${name}.map`),
  });
  for (let span = 0; span < blob.spanCount; span += 1) {
    const { compOffset, compLength } = blob.span(span);
    const bytes = new Uint8Array(layer.subarray(compOffset, compOffset + compLength));
    const [result] = await Engine.get().fill(blob, span, span, bytes);
    expect(result?.status).toBe("present");
  }
  await blob.release();
  const bytes = await readFile(cachePath);
  await Promise.all(["blob", "map"].map((suffix) => rm(join(directory, `${name}.${suffix}`))));
  return bytes;
}

/** What eStargz keeps of a time. */
function rounded(entry: TocEntry): TocEntry {
  const seconds = entry.mtimeNanos < 500_000_000 ? entry.mtimeSeconds : entry.mtimeSeconds + 1;
  return { ...entry, mtimeSeconds: seconds, mtimeNanos: 0 };
}

const isAscii = (text: string): boolean => /^[\0-\x7f]*$/.test(text);

/** Random layers with larger files among them, without the names that JSON cannot hold. */
function randomLayer(seed: number): TestLayer {
  const random = new SeededRandom(seed);
  const [layer = []] = randomLayers(seed, 1, 80);
  const big: TestLayer = Array.from({ length: 5 }, (_, at) => ({
    path: `big-${at}`,
    type: "file" as const,
    content: random.bytes(random.next(300_000)),
  }));
  return [...layer, ...big].filter(({ path, link }) => isAscii(path) && isAscii(link ?? ""));
}

describe("an index by the layer's own table is the one that reading the layer gives", () => {
  const variants: readonly ChunkedOptions[] = [
    {},
    { chunkBytes: 10_000 },
    { chunkBytes: 7000, memberBytesMin: 40_000 },
  ];
  for (const format of formats)
    for (const [seed, options] of variants.entries())
      test(`${format}, ${JSON.stringify(options)}`, async () => {
        const made = make(format, randomLayer(seed + 1), options);
        const { layer, source } = registered(format, made);
        const read = await indexLayerStream(
          layer,
          source.stream(layer, 0, signal),
          files("read"),
          defaultIndexLimits,
          signal,
        );
        const { requests } = source.stats();
        const indexed = await byTable(layer, source);
        expect(source.stats().requests - requests).toBe(1);
        const expected = [...openToc(files("read").tocPath)];
        expect([...openToc(files("table").tocPath)]).toEqual(
          format === "estargz" ? expected.map(rounded) : expected,
        );
        expect(indexed.blobSizeBytes).toBe(read.blobSizeBytes);
        const blobs = [await blobOf("table", made.blob), await blobOf("read", made.blob)] as const;
        expect(blobs[0].equals(blobs[1])).toBe(true);
      });
});

test("a hole that the table names takes no bytes of the layer", async () => {
  const content = Buffer.concat([Buffer.alloc(8192, 1), Buffer.alloc(8192), Buffer.alloc(100, 2)]);
  const made = make("zstdChunked", [{ path: "f", type: "file", content }], {
    chunkBytes: 8192,
    edit: (entries) =>
      Object.assign(entries[1] ?? {}, { chunkType: "zeros", offset: 0, chunkDigest: undefined }),
  });
  const { layer, source } = registered("zstdChunked", made);
  expect((await byTable(layer, source)).tarSizeBytes).toBe(8292);
  const blob = await blobOf("table", made.blob);
  expect(blob.subarray(0, content.length).equals(content)).toBe(true);
});

test("a table that is longer than the end of the layer that is read at first is fetched whole", async () => {
  const random = new SeededRandom(4);
  const layer: TestLayer = Array.from({ length: 12_000 }, (_, at) => ({
    path: `${random.bytes(60).toString("hex")}-${at}`,
    type: "file",
  }));
  const made = registered("estargz", make("estargz", layer));
  expect((await byTable(made.layer, made.source)).entries).toBe(12_000);
  expect(made.source.stats().requests).toBe(2);
});

const two: TestLayer = [
  { path: "d", type: "dir" },
  { path: "d/a", type: "file", content: Buffer.alloc(5000, 1) },
  { path: "d/b", type: "file", content: Buffer.alloc(9000, 2) },
];
/** Of the table of `two` with chunks of 4096 bytes: d, a, a's second chunk, b, b's second, b's third. */
type Entries = Record<string, unknown>[];
const at = (entries: Entries, index: number): Record<string, unknown> => entries[index] ?? {};
const lies: Readonly<Record<string, readonly [edit: (entries: Entries) => void, message: string]>> = {
  "a chunk beyond the layer's data": [
    (e) => Object.assign(at(e, 5), { offset: 1e9 }),
    "outside of the layer",
  ],
  "chunks that go back in the layer": [(e) => Object.assign(at(e, 4), { offset: 1 }), "lies before"],
  "chunks of one member that overlap": [
    (e) => Object.assign(at(e, 2), { offset: at(e, 1)["offset"], innerOffset: 1 }),
    "lies before",
  ],
  "a chunk that is missing": [(e) => e.splice(2, 1), "not all of it"],
  "a chunk that is there twice": [(e) => e.splice(3, 0, { ...at(e, 2) }), "do not follow"],
  "a chunk that is longer than its file": [
    (e) => Object.assign(at(e, 1), { chunkSize: 5001 }),
    "do not follow",
  ],
  "a chunk of a folder": [(e) => e.splice(1, 0, { ...at(e, 2) }), "stands alone"],
  "a chunk of another file": [(e) => Object.assign(at(e, 2), { name: "d/b" }), "stands alone"],
  "a size that is larger than the chunks": [(e) => Object.assign(at(e, 3), { size: 1e15 }), "not all of it"],
  "a negative size": [(e) => Object.assign(at(e, 3), { size: -1 }), "size is wrong"],
  "a chunk without a digest": [(e) => delete at(e, 2)["chunkDigest"], "has no SHA-256"],
  "an unknown type": [(e) => Object.assign(at(e, 0), { type: "door" }), "type is wrong"],
  "a time that is none": [(e) => Object.assign(at(e, 0), { modtime: "yesterday" }), "a time"],
  "a name that was not UTF-8": [(e) => Object.assign(at(e, 0), { name: "caf\ufffd" }), "was not UTF-8"],
  "a name that leaves the root": [(e) => Object.assign(at(e, 0), { name: "../d" }), "could leave the image"],
  "half of a character": [(e) => Object.assign(at(e, 0), { name: "\ud800" }), "was not UTF-8"],
};

describe("a table is refused that has", () => {
  for (const [name, [edit, message]] of Object.entries(lies))
    test(name, async () => {
      for (const format of formats) {
        const { layer, source } = registered(format, make(format, two, { chunkBytes: 4096, edit }));
        expect((await failureOf(byTable(layer, source))).message).toContain(message);
      }
    });

  test("more entries, bytes or longer chunks than the limits allow", async () => {
    const { layer, source } = registered("estargz", make("estargz", two, { chunkBytes: 4096 }));
    for (const limits of [{ entriesMax: 5 }, { tocBytesMax: 500 }, { spanBytesMax: 4000 }])
      expect((await failureOf(byTable(layer, source, limits))).code).toBe("limit_exceeded");
    await byTable(layer, source, { entriesMax: 6, spanBytesMax: 4096 });
  });

  test("another digest than the manifest's, or no end", async () => {
    for (const format of formats) {
      const made = make(format, two);
      const { layer, source } = registered(format, made);
      const annotations = Object.fromEntries(
        Object.entries(made.annotations).map(([key, value]) => [
          key,
          value.startsWith("sha256:") ? `sha256:${"0".repeat(64)}` : value,
        ]),
      );
      expect((await failureOf(byTable({ ...layer, annotations }, source))).code).toBe("digest_mismatch");
      const { table, bytes } = await findChunkTable(layer, source, defaultIndexLimits, signal);
      async function* cut() {
        for await (const piece of bytes) yield piece.subarray(0, 200);
      }
      const indexing = indexLayerStream(
        { ...layer, chunkTable: table },
        cut(),
        files("cut"),
        defaultIndexLimits,
        signal,
      );
      expect((await failureOf(indexing)).message).toContain("it ends early");
    }
  });

  test("no place in the layer", async () => {
    const estargz = registered("estargz", make("estargz", two));
    const elsewhere = { ...estargz.layer, size: estargz.layer.size - 1 };
    expect((await failureOf(byTable(elsewhere, estargz.source))).message).toContain("no eStargz footer");
    const zstd = registered("zstdChunked", make("zstdChunked", two));
    const key = "io.github.containers.zstd-chunked.manifest-position";
    for (const position of ["", "1:2:3", "1:2:3:2", "9999999:2:3:1", "-1:2:3:1", "5:0:1:1"]) {
      const layer = { ...zstd.layer, annotations: { ...zstd.layer.annotations, [key]: position } };
      expect((await failureOf(byTable(layer, zstd.source))).code).toBe("bad_layer");
    }
  });
});

test("whatever bytes of a table change, it is read or refused by an error of ours", async () => {
  const random = new SeededRandom(77);
  let refused = 0;
  for (let round = 0; round < 300; round += 1) {
    const editText = (json: Buffer): void => {
      for (let change = random.next(4); change >= 0; change -= 1)
        json[random.next(json.length)] = random.pick([0, 0x22, 0x2c, 0x39, 0x5b, 0x5d, 0x7b, 0x7d, 0xff]);
    };
    const format = random.pick(formats);
    const { layer, source } = registered(format, make(format, two, { chunkBytes: 4096, editText }));
    try {
      await byTable(layer, source);
    } catch (error) {
      expect(error).toBeInstanceOf(IndexError);
      refused += 1;
    }
  }
  expect(refused).toBeGreaterThan(100);
});

test("a layer without a digest of a table in its manifest has none", () => {
  const { layer } = registered("estargz", make("estargz", two));
  expect(chunkTableDigest(layer)).toBe(layer.annotations?.["containerd.io/snapshot/stargz/toc.digest"] ?? "");
  expect(chunkTableDigest({ ...layer, annotations: {} })).toBeUndefined();
  const annotations = { "containerd.io/snapshot/stargz/toc.digest": "sha256:short" };
  expect(chunkTableDigest({ ...layer, annotations })).toBeUndefined();
});

describe("the entries of a table's JSON", () => {
  const entries = [
    { name: 'a "quoted\\" } name]' },
    { name: "b", xattrs: { "user.[": "{", x: [1, { y: "}" }] } },
    {},
  ];
  const table = JSON.stringify({
    version: 1,
    other: [{ entries: [1] }],
    "key \\": "entries",
    entries,
    end: {},
  });

  test("are cut wherever the pieces end", () => {
    for (let size = 1; size <= table.length; size += 1) {
      const found: unknown[] = [];
      const cutter = new EntryCutter(1000, (entry) => found.push(entry));
      for (let from = 0; from < table.length; from += size)
        cutter.push(Buffer.from(table.slice(from, from + size)));
      cutter.finish();
      expect(found).toEqual(entries);
    }
  });

  test("are refused when they are not whole, too long, or come twice", () => {
    const failure = (text: string): string => {
      try {
        const cutter = new EntryCutter(50, () => {});
        cutter.push(Buffer.from(text.slice(0, 7)));
        cutter.push(Buffer.from(text.slice(7)));
        cutter.finish();
        return "";
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect(failure('{"entries":[{"name":"x"}]}')).toBe("");
    expect(failure('{"entries":[{"name":"x"}]')).toContain("not whole");
    expect(failure('{"version":1}')).toContain("not whole");
    expect(failure('{"entries":[]}]')).toContain("not JSON");
    expect(failure('{"entries":[{"name":}]}')).toContain("not JSON");
    expect(failure('{"entries":[],"entries":[{}]}')).toContain("two lists");
    expect(failure(`{"entries":[{"name":"${"x".repeat(50)}"}]}`)).toContain("too long");
  });
});
