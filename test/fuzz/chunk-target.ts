import { join } from "node:path";
import { findChunkTable } from "../../src/index/chunk-table.ts";
import { ChunkTableIndexing } from "../../src/index/chunk-table-index.ts";
import { chunkedLayer } from "../../src/index/chunked-layer.test-kit.ts";
import { IndexError } from "../../src/index/error.ts";
import { readSpanFile } from "../../src/index/layer.test-kit.ts";
import { openToc } from "../../src/index/layer-toc.ts";
import { defaultIndexLimits } from "../../src/index/limits.ts";
import { makeTar, type SeededRandom } from "../../src/index/tar.test-kit.ts";
import { LayerBlob } from "../../src/native/blob.ts";
import { Engine } from "../../src/native/engine.ts";
import { mutate } from "./mutate.ts";
import { checkReading } from "./tar-target.ts";
import { promise, refused, type Target } from "./target.ts";

const limits = { ...defaultIndexLimits, entriesMax: 500, blobBytesMax: 2 ** 36, spanBytesMax: 2 ** 20 };
const odd = [
  null,
  -1,
  0,
  1,
  1.5,
  512,
  4096,
  2 ** 31,
  2 ** 53 - 1,
  2 ** 53,
  "",
  "a",
  "../x",
  "/",
  "a\0b",
  "zeros",
  "chunk",
  "reg",
  "hardlink",
  "2020-13-45T99:99:99Z",
  `sha256:${"0".repeat(64)}`,
  {},
  [],
  { "user.x": "!" },
];
let tables = 0;

/**
 * Layers of eStargz and zstd:chunked whose tables lie, each with what its manifest says of it before it: refused by name, or
 * an index that stays inside of the layer, and that tells for each chunk whether it is what the table says.
 */
export const chunkTarget: Target = {
  name: "chunk-table",
  make(random) {
    const honest = random.next(8) === 0;
    const members = Array.from({ length: 1 + random.next(5) }, (_, at) => randomMember(random, at));
    const layer = chunkedLayer(random.pick(["estargz", "zstdChunked"] as const), members, {
      chunkBytes: random.pick([500, 4096, 100_000]),
      memberBytesMin: random.pick([0, 3000]),
      ...(honest ? {} : { edit: (entries) => lie(entries, random) }),
    });
    const blob = honest || random.next(3) > 0 ? layer.blob : mutate(layer.blob, random, 2);
    const annotations = Buffer.from(JSON.stringify(layer.annotations));
    const head = Buffer.alloc(5);
    head[0] = honest ? 1 : 0;
    head.writeUInt32LE(annotations.length, 1);
    return Buffer.concat([
      head,
      !honest && random.next(6) === 0 ? mutate(annotations, random, 1) : annotations,
      blob,
    ]);
  },
  async run(bytes, random, folder) {
    const input = Buffer.from(bytes);
    const end = 5 + input.readUInt32LE(1);
    const layer = input.subarray(end);
    tables += 1;
    const out = { spanPath: join(folder, `spans-${tables}`), tocPath: join(folder, "toc") };
    const refusal = await refused(IndexError, () =>
      indexTable(layer, annotationsOf(input.subarray(5, end)), out, random),
    );
    promise(refusal === undefined || input[0] === 0, () => `an honest table is refused: ${refusal?.message}`);
    if (refusal === undefined) await fillChunks(out.spanPath, layer, input[0] === 1);
  },
};

function randomMember(random: SeededRandom, at: number): Buffer {
  const data = random.bytes(random.pick([0, 1, 499, 512, 5000, 20_000]));
  const xattr = [["SCHILY.xattr.user.x", "v"]] as const;
  return makeTar(
    [
      { name: `f${at}`, data, ...(random.next(4) === 0 ? { pax: xattr } : {}) },
      ...(random.next(3) === 0 ? [{ name: `d${at}`, type: "5" }] : []),
    ].slice(0, 1),
    0,
  );
}

function lie(entries: Record<string, unknown>[], random: SeededRandom): void {
  for (let left = 1 + random.next(3); left > 0 && entries.length > 0; left -= 1) {
    const at = random.next(entries.length);
    const entry = entries[at] ?? {};
    const choice = random.next(8);
    if (choice === 0) entries.splice(at, 1);
    else if (choice === 1) entries.splice(random.next(entries.length), 0, structuredClone(entry));
    else if (choice === 2) entries.reverse();
    else {
      const key = random.pick([
        ...Object.keys(entry),
        "offset",
        "innerOffset",
        "chunkOffset",
        "chunkSize",
        "size",
        "type",
        "linkName",
        "chunkType",
        "xattrs",
      ]);
      const old = entry[key];
      entry[key] =
        typeof old === "number" && random.next(2) === 0 ? old + random.next(9) - 4 : random.pick(odd);
    }
  }
}

function annotationsOf(text: Buffer): Record<string, string> {
  try {
    return JSON.parse(text.toString("utf8")) as Record<string, string>;
  } catch {
    return {};
  }
}

/** Indexes a layer by the table that it brings. @throws IndexError */
export async function indexTable(
  layer: Buffer,
  annotations: Record<string, string>,
  out: { spanPath: string; tocPath: string },
  random: SeededRandom,
): Promise<void> {
  const digest = `sha256:${new Bun.CryptoHasher("sha256").update(layer).digest("hex")}`;
  const descriptor = {
    mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
    digest,
    size: layer.length,
    annotations,
  };
  const source = { read: async (_: unknown, from: number, to: number) => layer.subarray(from, to) };
  const found = await findChunkTable(descriptor, source as never, limits, new AbortController().signal);
  const indexing = ChunkTableIndexing.create(descriptor, found.table, out, limits);
  try {
    for await (const bytes of found.bytes) {
      for (let at = 0; at < bytes.length; ) {
        const length = 1 + random.next(3000);
        indexing.push(bytes.subarray(at, at + length));
        at += length;
      }
    }
    const indexed = indexing.finish();
    const { extents } = await readSpanFile(out.spanPath);
    const places = extents.map(
      ({ tarOffset, blobOffset, length }) => [tarOffset, blobOffset, length] as const,
    );
    checkReading(
      { entries: [...openToc(out.tocPath)], extents: places, blobBytes: indexed.blobSizeBytes },
      indexed.tarSizeBytes,
    );
  } finally {
    indexing.close();
  }
}

async function fillChunks(spanPath: string, layer: Buffer, honest: boolean): Promise<void> {
  const blob = LayerBlob.open({ spanPath, cachePath: `${spanPath}.cache`, mapPath: `${spanPath}.map` });
  try {
    for (let index = 0; index < blob.spanCount; index += 1) {
      const { compOffset, compLength } = blob.span(index);
      promise(compOffset + compLength <= layer.length, () => `chunk ${index} lies outside of the layer`);
      const [result] = await Engine.get().fill(
        blob,
        index,
        index,
        layer.subarray(compOffset, compOffset + compLength),
      );
      const present = result?.status === "present";
      promise(
        present || (!honest && ["digest_mismatch", "inflate_error"].includes(result?.status ?? "")),
        () => `chunk ${index} is ${result?.status}`,
      );
    }
  } finally {
    await blob.release();
  }
}
