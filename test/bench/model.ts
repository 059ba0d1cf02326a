import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { type ModelKind, modelImage, modelPath } from "../kit/model-image.ts";
import { type Benchmark, type Figure, figure, median, type Run, samples } from "./figure.ts";
import { LazyTree } from "./mount.ts";

const mebibyte = 1024 * 1024;
const middle = 64;

/**
 * One large file, cold: read to its end, against a plain GET of the same layer over the same link in the same round; and
 * 64 MB in the middle of it.
 */
export const model: Benchmark = {
  name: "model",
  about:
    "a model file in one layer, cold: to its end and 64 MB in its middle, against a plain GET over the link",
  async run(run_) {
    const sizes = run_.full
      ? { noise: 4096 * mebibyte, weights: 2048 * mebibyte }
      : { noise: 1024 * mebibyte, weights: 1024 * mebibyte };
    return [...(await noise(run_, sizes.noise)), ...(await weights(run_, sizes.weights))];
  },
};

async function noise(run_: Run, sizeBytes: number): Promise<Figure[]> {
  const { whole, parts, links } = await measure(run_, "noise", sizeBytes, true);
  const linkSeconds = (middle * 1e6) / median(links);
  const seconds = parts.map((part) => part.seconds);
  const fetched = parts.map((part) => part.bytes / 1e6);
  return [
    linkShare("model/noise-to-link", whole, links),
    figure("model/middle-64-mb/fetched", median(fetched), "MB", 80, {
      detail: { megabytes: samples(fetched) },
    }),
    figure("model/middle-64-mb/to-link-time", median(seconds) / linkSeconds, "", 2, {
      from: [seconds],
      detail: { seconds: samples(seconds), linkSeconds },
    }),
    figure("model/link", median(links) / 1e6, "MB/s", undefined, { from: [links] }),
  ];
}

async function weights(run_: Run, sizeBytes: number): Promise<Figure[]> {
  const { whole, links, ratio } = await measure(run_, "weights", sizeBytes, false);
  return [
    linkShare("model/weights-to-link", whole, links),
    figure("model/weights-compressed-to", ratio, "", undefined),
  ];
}

function linkShare(name: string, whole: readonly number[], links: readonly number[]): Figure {
  return figure(name, median(whole) / median(links), "", 0.9, {
    better: "higher",
    from: [whole, links],
    detail: { compressedBytesPerSecond: samples(whole), link: samples(links) },
  });
}

interface Measured {
  /** Compressed bytes per second of reading all of it. */
  readonly whole: number[];
  readonly parts: { seconds: number; bytes: number }[];
  /** Bytes per second of a plain GET. */
  readonly links: number[];
  /** Compressed size per size. */
  readonly ratio: number;
}

async function measure(
  { stage, rounds, tell }: Run,
  kind: ModelKind,
  sizeBytes: number,
  withPart: boolean,
): Promise<Measured> {
  const image = await modelImage(kind, sizeBytes, tell);
  const reference = await stage.pushed(image, `bench/model-${kind}-${sizeBytes / mebibyte}:1`);
  const tree = new LazyTree(stage, kind);
  await tree.index(reference);
  const found: Measured = { whole: [], parts: [], links: [], ratio: image.sizeBytes / sizeBytes };
  const count = rounds(5);
  for (let round = 1; round <= count; round++) {
    found.links.push(await stage.plainRate(image, reference));
    await tree.forget();
    await tree.up(reference);
    const seconds = await read(tree, 0, sizeBytes / mebibyte);
    found.whole.push(image.sizeBytes / seconds);
    await tree.down();
    if (withPart) {
      await tree.forget();
      await tree.up(reference);
      await stage.link.resetStats();
      const part = await read(tree, sizeBytes / mebibyte / 2, (middle * 1e6) / mebibyte);
      await tree.down();
      found.parts.push({ seconds: part, bytes: (await stage.link.stats()).bytes });
    }
    const mb = (value: number | undefined): string => ((value ?? 0) / 1e6).toFixed(1);
    const part = found.parts.at(-1);
    const told =
      part === undefined ? "" : `; ${middle} MB in ${part.seconds.toFixed(2)} s, ${mb(part.bytes)} MB`;
    tell(`${kind} ${round} of ${count}: ${mb(found.whole.at(-1))} of ${mb(found.links.at(-1))} MB/s${told}`);
  }
  await tree.forget();
  return found;
}

/** Reads a stretch given in MiB, and gives the seconds. */
async function read(tree: LazyTree, from: number, count: number): Promise<number> {
  const path = join(tree.root, modelPath);
  const bytes = [`skip=${from * mebibyte}`, `count=${Math.round(count * mebibyte)}`];
  const started = performance.now();
  await run(["dd", `if=${path}`, "of=/dev/null", "bs=1M", "iflag=skip_bytes,count_bytes", ...bytes], {
    timeoutMs: 600_000,
  });
  return (performance.now() - started) / 1000;
}
