import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { IndexError } from "../../src/index/error.ts";
import { indexBytes, readSpanFile } from "../../src/index/layer.test-kit.ts";
import { openToc } from "../../src/index/layer-toc.ts";
import { SeededRandom } from "../../src/index/tar.test-kit.ts";
import { spanFile } from "../../src/index/types.ts";
import { LayerBlob } from "../../src/native/blob.ts";
import { Engine } from "../../src/native/engine.ts";
import { compressed, layerKinds, someTar } from "./layer-maker.ts";
import { mutate } from "./mutate.ts";
import { damageTar, randomTar } from "./tar-maker.ts";
import { checkReading } from "./tar-target.ts";
import { promise, refused, type Target } from "./target.ts";

const large: Buffer[] = [];
const bombs = [Buffer.alloc(3_000_000), Buffer.concat([Buffer.from("x"), Buffer.alloc(200_000, 0xff)])];
const limits = {
  spanBytesMax: 4 * 2 ** 20,
  ratioFreeBytes: 2 ** 20,
  ratioMax: 900,
  entriesMax: 64,
  blobBytesMax: 2 ** 36,
  sparseSegmentsMax: 64,
};
const types = ["", "+gzip", "+zstd"];
let layers = 0;

/** Whole layers, their compressed bytes or what is in them damaged: refused by name, or a blob can be filled by the index. */
export const layerTarget: Target = {
  name: "layer",
  async prepare() {
    const random = new SeededRandom(3);
    for (const kind of layerKinds) large.push(compressed(someTar(random, 5_000_000), kind));
  },
  make(random) {
    const kind = random.pick(layerKinds);
    const choice = random.next(8);
    if (choice === 0) return mutate(random.pick(large), random, 2);
    if (choice === 1) return compressed(random.pick(bombs), kind);
    const tar = randomTar(random, random.next(2) === 0);
    if (choice < 5) return mutate(compressed(tar, kind), random, 2);
    return compressed(random.next(3) === 0 ? damageTar(tar, random) : tar, kind);
  },
  async run(input, random, folder) {
    const layer = Buffer.from(input);
    layers += 1;
    const out = { spanPath: join(folder, `spans-${layers}`), tocPath: join(folder, "toc") };
    const mediaType = `application/vnd.oci.image.layer.v1.tar${random.pick(types)}`;
    const refusal = await refused(IndexError, async () => {
      const indexed = await indexBytes(layer, out, {
        limits,
        mediaType,
        chunkBytes: 1 + random.next(70_000),
      });
      const { header, extents } = await readSpanFile(out.spanPath);
      checkReading(
        {
          entries: [...openToc(out.tocPath)],
          extents: extents.map(({ tarOffset, blobOffset, length }) => [tarOffset, blobOffset, length]),
          blobBytes: indexed.blobSizeBytes,
        },
        indexed.tarSizeBytes,
      );
      promise(header.blobBytes === indexed.blobSizeBytes, () => "the span file has another blob");
      if (indexed.blobSizeBytes < 2 ** 28) await fillAll(out.spanPath, layer);
    });
    if (refusal === undefined) return;
    promise(
      refusal.code !== "corrupt_index" && refusal.code !== "digest_mismatch",
      () => `refused by ${refusal.code}`,
    );
    promise(
      (await readdir(folder)).every((name) => !name.startsWith(`spans-${layers}`)),
      () => "a refused layer left a file",
    );
  },
};

/** What indexing accepts must be what the native half can read: every span fills, and the blob is the archive's files. */
async function fillAll(spanPath: string, layer: Buffer): Promise<void> {
  const blob = LayerBlob.open({ spanPath, cachePath: `${spanPath}.cache`, mapPath: `${spanPath}.map` });
  try {
    const { header } = await readSpanFile(spanPath);
    if (header.kind === spanFile.kinds.zstdStream) {
      const stream = Engine.get().streamOpen(blob);
      await stream.push(layer);
      await stream.end();
    }
    for (let index = 0; index < blob.spanCount; index += 1) {
      if (blob.isPresent(index)) continue;
      const { compOffset, compLength } = blob.span(index);
      const [result] = await Engine.get().fill(
        blob,
        index,
        index,
        layer.subarray(compOffset, compOffset + compLength),
      );
      promise(result?.status === "present", () => `span ${index} of ${blob.spanCount} is ${result?.status}`);
    }
    promise(blob.complete, () => "all spans were filled and the blob is not complete");
    const tar = decompressed(header.kind, layer);
    if (tar !== undefined && tar.length === header.tarBytes) await compareBlob(spanPath, tar);
  } finally {
    await blob.release();
  }
}

/** The layer's tar by the platform's own decompressors, which know nothing of spans; `undefined` when they take it for none. */
function decompressed(kind: number, layer: Buffer): Buffer | undefined {
  try {
    if (kind === spanFile.kinds.plain) return layer;
    if (kind === spanFile.kinds.gzip) return gunzipSync(layer, { maxOutputLength: 2 ** 28 });
    return Buffer.from(Bun.zstdDecompressSync(layer as Buffer<ArrayBuffer>));
  } catch {
    return undefined;
  }
}

async function compareBlob(spanPath: string, tar: Buffer): Promise<void> {
  const { header, extents } = await readSpanFile(spanPath);
  const expected = Buffer.alloc(header.blobBytes);
  for (const { tarOffset, blobOffset, length } of extents)
    tar.copy(expected, blobOffset, tarOffset, tarOffset + length);
  promise(expected.equals(await readFile(`${spanPath}.cache`)), () => "the blob is not the archive's files");
}
