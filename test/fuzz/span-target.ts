import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { IndexError } from "../../src/index/error.ts";
import { indexBytes } from "../../src/index/layer.test-kit.ts";
import { readSpanHeader } from "../../src/index/span-file.ts";
import { SeededRandom } from "../../src/index/tar.test-kit.ts";
import { LayerBlob, spanKinds } from "../../src/native/blob.ts";
import { Engine } from "../../src/native/engine.ts";
import { NativeError } from "../../src/native/error.ts";
import { compressed, mediaTypeOf, someTar } from "./layer-maker.ts";
import { mutate } from "./mutate.ts";
import { promise, refused, type Target } from "./target.ts";

interface Seed {
  readonly spans: Buffer;
  readonly layer: Buffer;
}

const seeds: Seed[] = [];
let opened = 0;

/**
 * Span files with changed bytes and the layers that they cut: refused when they are opened, or all that they name lies
 * inside, and filling a blob by them ends by a word for each span.
 */
export const spanTarget: Target = {
  name: "span-file",
  async prepare(folder) {
    const random = new SeededRandom(2);
    for (const kind of ["none", "gzip", "gzip-members", "zstd", "zstd-frames"] as const) {
      for (const size of [20_000, 5_000_000]) {
        const layer = await compressed(someTar(random, size), kind);
        const out = { spanPath: join(folder, `${kind}-${size}`), tocPath: join(folder, "toc") };
        await indexBytes(layer, out, { mediaType: mediaTypeOf(kind) });
        seeds.push({ spans: await readFile(out.spanPath), layer });
      }
    }
  },
  make(random) {
    const which = random.next(seeds.length);
    const { spans } = seeds[which] as Seed;
    // The tables and the header more often than the windows, which are most of the file.
    const tables = Number(spans.readBigUInt64LE(48));
    const changed =
      random.next(4) === 0
        ? mutate(spans, random)
        : random.next(2) === 0
          ? Buffer.concat([mutate(spans.subarray(0, 128), random, 2), spans.subarray(128)])
          : Buffer.concat([spans.subarray(0, tables), mutate(spans.subarray(tables), random, 3)]);
    return Buffer.concat([Buffer.from([which]), changed]);
  },
  async run(input, _random, folder) {
    opened += 1;
    const spanPath = join(folder, `spans-${opened}`);
    await writeFile(spanPath, input.subarray(1));
    await refused(IndexError, () => readSpanHeader(spanPath));
    let blob: LayerBlob | undefined;
    await refused(NativeError, () => {
      blob = LayerBlob.open({ spanPath, cachePath: `${spanPath}.cache`, mapPath: `${spanPath}.map` });
    });
    if (blob === undefined) return;
    try {
      await useBlob(blob, (seeds[input[0] ?? 0] as Seed).layer);
    } finally {
      await blob.release();
    }
  },
};

async function useBlob(blob: LayerBlob, layer: Buffer): Promise<void> {
  for (let index = 0; index < Math.min(blob.spanCount, 64); index += 1) {
    const span = blob.span(index);
    promise(
      span.compOffset + span.compLength <= blob.compressedBytes,
      () => `span ${index} is outside of the layer`,
    );
    promise(
      span.tarOffset + span.tarLength <= blob.tarSizeBytes,
      () => `span ${index} is outside of the tar`,
    );
    promise(span.blobOffset <= blob.sizeBytes, () => `span ${index} is outside of the blob`);
    const bytes = layer.subarray(span.compOffset, span.compOffset + span.compLength);
    if (blob.kind === spanKinds.zstdStream || bytes.length < span.compLength) continue;
    await refused(NativeError, async () => {
      const [result] = await Engine.get().fill(blob, index, index, bytes);
      promise(result !== undefined, () => `nobody says what became of span ${index}`);
    });
  }
  const range = blob.spansOf(0, blob.sizeBytes);
  if (range !== undefined) promise(range.last < blob.spanCount, () => "a range leads to a span that is none");
  if (blob.kind !== spanKinds.zstdStream) return;
  const stream = Engine.get().streamOpen(blob);
  try {
    await refused(NativeError, () => stream.push(layer));
  } finally {
    stream.close();
  }
}
