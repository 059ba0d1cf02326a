import { mkdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { pipImage } from "../kit/pip-image.ts";
import { complete, startStaying } from "./container.ts";
import { LocalTree } from "./eager.ts";
import { type Benchmark, type Figure, figure, median, type Run, samples } from "./figure.ts";
import { probe } from "./probe.ts";
import { dropDentries, type Stage } from "./stage.ts";

const operations = ["stat", "open", "read4k", "missing", "walk", "tar", "random4k", "sequential"] as const;
type Times = Record<(typeof operations)[number], number>;

/** What is measured in a tree: the names for calls, the large file to read. */
interface Targets {
  readonly names: string;
  readonly file: string;
}

/**
 * Work on a running container's root with all bytes here, against the same on overlayfs over the tree extracted on the
 * local disk: once served through FUSE, as right after a first start, once with complete layers as local files.
 */
export const warmRatios: Benchmark = {
  name: "warm-ratios",
  about:
    "warm calls, walks, tar and reads on the container's overlay, against overlayfs over the extracted tree",
  async run(run_) {
    const { stage } = run_;
    const image = await pipImage(run_.tell);
    const reference = await stage.pushed(image, "bench/pip:1");
    const id = await stage.builtBefore(reference);
    const local = await LocalTree.unpack(stage, image);
    const native = await overlayOver(stage, local.root);
    try {
      const targets = await chooseTargets(stage, native);
      await stage.forget();
      return [
        ...(await compare(run_, id, native, targets, "warm")),
        ...(await compare(run_, id, native, targets, "warm-complete")),
      ];
    } finally {
      await run(["umount", native]);
    }
  },
};

async function compare(
  { stage, rounds, tell }: Run,
  image: string,
  native: string,
  targets: Targets,
  name: string,
): Promise<Figure[]> {
  const node = await stage.node();
  try {
    const { id, pid } = await startStaying(node, image, "sleep", "1000");
    await complete(node, id);
    const root = `/proc/${pid}/root`;
    const ours: Times[] = [];
    const theirs: Times[] = [];
    await measure(root, targets);
    await measure(native, targets);
    for (let round = 0; round < rounds(7); round++) {
      ours.push(await measure(root, targets));
      theirs.push(await measure(native, targets));
    }
    tell(`${name}: ${ours.length} rounds`);
    return operations.map((operation) => {
      const a = ours.map((times) => times[operation]);
      const b = theirs.map((times) => times[operation]);
      return figure(`${name}/${operation}`, median(a) / median(b), "", 1.2, {
        from: [a, b],
        detail: { oursNanos: samples(a), overlayNanos: samples(b) },
      });
    });
  } finally {
    await node.stopProcess();
    await node.discard();
  }
}

async function overlayOver(stage: Stage, lower: string): Promise<string> {
  const [upper, work, merged] = ["upper", "work", "merged"].map((part) =>
    join(stage.dir, "overlay", part),
  ) as [string, string, string];
  for (const dir of [upper, work, merged]) await mkdir(dir, { recursive: true });
  const options = `lowerdir=${lower},upperdir=${upper},workdir=${work}`;
  await run(["mount", "-t", "overlay", "overlay", "-o", options, merged]);
  return merged;
}

/** Two thousand regular files of at least 4 KiB, and the largest one. */
async function chooseTargets(stage: Stage, root: string): Promise<Targets> {
  const { stdout } = await run(["find", "usr", "-type", "f", "-size", "+8"], { cwd: root });
  const names = stdout.trim().split("\n").sort();
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(root, name))).size));
  const file = names[sizes.indexOf(Math.max(...sizes))] ?? "";
  const step = Math.max(1, Math.floor(names.length / 2000));
  const path = join(stage.dir, "names");
  await writeFile(path, `${names.filter((_, index) => index % step === 0).join("\n")}\n`);
  return { names: path, file };
}

async function measure(root: string, { names, file }: Targets): Promise<Times> {
  const calls = await probe<"stat" | "open" | "read4k" | "missing">("calls", root, names);
  const reads = await probe<"random4k" | "sequential">("file", join(root, file));
  const tar = await tarNanos(root);
  await dropDentries();
  const { walk } = await probe<"walk">("walk", join(root, "usr"));
  return { ...calls, ...reads, tar, walk };
}

async function tarNanos(root: string): Promise<number> {
  // Through a pipe: tar does not read files that it writes to /dev/null.
  const started = performance.now();
  await run(["sh", "-c", 'tar -c -C "$1" usr | cat > /dev/null', "sh", root], { timeoutMs: 120_000 });
  return (performance.now() - started) * 1e6;
}
