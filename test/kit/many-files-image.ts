import { createHash } from "node:crypto";
import { mkdir, open, stat } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { type Layer, type LocalImage, writeLayout } from "./oci-layout.ts";
import { type TarEntry, tarOf } from "./tar.ts";

const perChunk = 5_000;
const endOfArchive = 1024;

/** How many small files, in how many layers, in how many folders of a layer (by default one per thousand). */
export interface ManyFiles {
  readonly files: number;
  readonly layers: number;
  readonly foldersPerLayer?: number;
}

/** An image of nothing but small files, written to a folder: the same bytes for the same numbers. */
export async function manyFilesImage(
  dir: string,
  { files, layers, foldersPerLayer }: ManyFiles,
): Promise<LocalImage> {
  await mkdir(dir, { recursive: true });
  const made: Layer[] = [];
  const each = Math.ceil(files / layers);
  for (let layer = 0; layer < layers; layer++) {
    const count = Math.min(each, files - layer * each);
    const folders = foldersPerLayer ?? Math.ceil(count / 1000);
    made.push(await smallFiles(join(dir, `layer-${layer}.tar`), layer, count, folders));
  }
  return await writeLayout(dir, made, {});
}

async function smallFiles(path: string, layer: number, count: number, folders: number): Promise<Layer> {
  const hash = createHash("sha256");
  const file = await open(path, "w");
  try {
    const write = async (entries: TarEntry[], last: boolean): Promise<void> => {
      const tar = tarOf(entries);
      const bytes = last ? tar : tar.subarray(0, tar.length - endOfArchive);
      hash.update(bytes);
      await file.writeFile(bytes);
    };
    const names = Array.from({ length: folders }, (_, folder) => `layer-${layer}/folder-${folder}`);
    await write(
      [`layer-${layer}`, ...names].map((name) => ({ path: name, type: "dir" })),
      count === 0,
    );
    for (let from = 0; from < count; from += perChunk) {
      const to = Math.min(count, from + perChunk);
      const entries = Array.from({ length: to - from }, (_, index): TarEntry => {
        const number = from + index;
        const text = `file ${number} of layer ${layer}\n`;
        return {
          path: `${names[number % folders]}/file-${number}.txt`,
          data: text.repeat(1 + (number % 20)),
        };
      });
      await write(entries, to === count);
    }
  } finally {
    await file.close();
  }
  await run(["gzip", "-1", "-n", path], { timeoutMs: 300_000 });
  if ((await stat(`${path}.gz`)).size === 0) throw new Error(`${path} is empty`);
  return { compression: "gzip", blob: { path: `${path}.gz` }, diffId: `sha256:${hash.digest("hex")}` };
}
