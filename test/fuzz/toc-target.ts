import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeErofs } from "../../src/index/erofs.ts";
import { IndexError } from "../../src/index/error.ts";
import { openToc, TocWriter } from "../../src/index/layer-toc.ts";
import { LayerMerger } from "../../src/index/merge.ts";
import { SeededRandom } from "../../src/index/tar.test-kit.ts";
import type { TocEntry } from "../../src/index/types.ts";
import { mutate } from "./mutate.ts";
import { randomTar } from "./tar-maker.ts";
import { readArchive } from "./tar-target.ts";
import { promise, refused, type Target } from "./target.ts";

const footerBytes = 48;
const seeds: Buffer[] = [];

/** Tables of contents with changed bytes, signed again half of the time: refused by name, or merged like any other. */
export const tocTarget: Target = {
  name: "toc",
  async prepare(folder) {
    const random = new SeededRandom(1);
    while (seeds.length < 24) {
      const path = join(folder, `toc-${seeds.length}`);
      const entries: TocEntry[] = [];
      const refusal = await refused(
        IndexError,
        () => void entries.push(...readArchive(randomTar(random, false), [512]).entries),
      );
      if (refusal !== undefined) continue;
      const writer = TocWriter.create(path);
      for (const entry of entries) writer.add(entry);
      writer.finish();
      seeds.push(await readFile(path));
    }
  },
  make(random) {
    const seed = random.pick(seeds);
    if (random.next(2) === 0) return mutate(seed, random);
    const body = mutate(seed.subarray(0, seed.length - footerBytes), random);
    const footer = Buffer.from(seed.subarray(seed.length - footerBytes));
    footer.set(new Bun.CryptoHasher("sha256").update(body).digest(), 16);
    return Buffer.concat([body, footer]);
  },
  async run(bytes, _random, folder) {
    const path = join(folder, "toc");
    await writeFile(path, bytes);
    const merger = new LayerMerger();
    const refusal = await refused(IndexError, async () => {
      merger.startLayer();
      for (const entry of openToc(path)) merger.add(entry);
      merger.endLayer();
      await writeErofs(merger.tree, [{ blobSizeBytes: 2 ** 20 }], join(folder, "erofs"));
    });
    const codes = ["corrupt_index", "bad_layer", "limit_exceeded"];
    promise(refusal === undefined || codes.includes(refusal.code), () => `refused by ${refusal?.code}`);
  },
};
