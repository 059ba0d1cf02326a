import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type ManyFiles, manyFilesImage } from "../kit/many-files-image.ts";
import { type Benchmark, type Figure, figure, median, type Run, samples } from "./figure.ts";
import { LazyTree } from "./mount.ts";
import { probe } from "./probe.ts";

/** Seconds of the three things, by round. */
interface Costs {
  readonly index: number[];
  readonly mount: number[];
  readonly walk: number[];
  entries: number;
}

const steps = ["index", "mount", "walk"] as const;

/** What indexing, mounting and walking cost for more and more files, for more and more layers, and for one huge folder. */
export const growth: Benchmark = {
  name: "growth",
  about:
    "index, mount and walk of 1k to 100k files (1M with --full), of 1 to 100 layers, of a folder of 200k entries",
  async run(run) {
    const sizes = [1_000, 10_000, 100_000, ...(run.full ? [1_000_000] : [])];
    const byFiles = new Map<number, Costs>();
    const figures: Figure[] = [];
    for (const files of sizes) {
      const costs = await measure(run, { files, layers: 1 });
      byFiles.set(files, costs);
      figures.push(...rows(`growth/${files / 1000}k-files`, costs));
    }
    for (const layers of [1, 10, 100]) {
      figures.push(...rows(`growth/${layers}-layers`, await measure(run, { files: 10_000, layers })));
    }
    const huge = await measure(run, { files: 200_000, layers: 1, foldersPerLayer: 1 });
    figures.push(...rows("growth/200k-in-a-folder", huge));
    figures.push(
      figure("growth/200k-in-a-folder/seen", huge.entries, "entries", 200_000, { better: "higher" }),
    );
    return [...figures, ...ratios(byFiles)];
  },
};

function rows(name: string, costs: Costs): Figure[] {
  return steps.map((step) =>
    figure(`${name}/${step}`, median(costs[step]), "s", undefined, {
      from: [costs[step]],
      detail: { seconds: samples(costs[step]), entries: costs.entries },
    }),
  );
}

/** Ten times the files may cost twenty times as much: they are not all in the processor's caches then. What is quadratic shows. */
function ratios(byFiles: ReadonlyMap<number, Costs>): Figure[] {
  const [small, large] = [byFiles.get(10_000), byFiles.get(100_000)];
  if (small === undefined || large === undefined) return [];
  return steps.map((step) =>
    figure(`growth/100k-to-10k-files/${step}`, median(large[step]) / median(small[step]), "", 20, {
      from: [small[step], large[step]],
    }),
  );
}

async function measure({ stage, rounds, tell }: Run, what: ManyFiles): Promise<Costs> {
  const name = `${what.files}-${what.layers}-${what.foldersPerLayer ?? "usual"}`;
  const dir = join(stage.dir, name);
  const image = await manyFilesImage(dir, what);
  const reference = stage.direct(await stage.pushed(image, `bench/files-${name}:1`));
  await rm(dir, { recursive: true });
  const costs: Costs = { index: [], mount: [], walk: [], entries: 0 };
  for (let round = 0; round < rounds(3); round++) {
    const tree = new LazyTree(stage, name);
    await tree.forget({ index: true });
    costs.index.push(await tree.index(reference));
    costs.mount.push(await tree.up(reference));
    const { walk, entries } = await probe<"walk" | "entries">("walk", tree.root);
    costs.walk.push(walk / 1e9);
    costs.entries = entries - 1;
    await tree.down();
  }
  const told = steps.map((step) => `${step} ${median(costs[step]).toFixed(2)} s`).join(", ");
  tell(`${what.files} files in ${what.layers} layers: ${told}`);
  return costs;
}
