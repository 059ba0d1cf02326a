import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { containerShape } from "../../src/cli/shape.ts";
import { run } from "../../src/std/spawn.ts";
import type { TestNode } from "../kit/node.ts";
import { unpack } from "../kit/unpack.ts";
import { type Benchmark, control, figure, median, samples } from "./figure.ts";
import { onStage, type Stage } from "./stage.ts";

const rounds = 9;
const operations = ["stat", "open", "read4k", "missing"] as const;
type Times = Record<(typeof operations)[number], number>;

/** Calls on a running container's root, all cached, against the same calls on overlayfs over the extracted tree. */
export const warmRatios: Benchmark = {
  name: "warm-ratios",
  about: "warm stat, open, read of 4 KiB and missing names, against overlayfs over the extracted tree",
  run: (tell) =>
    onStage(async (stage) => {
      const native = await extractedOverlay(stage);
      const probe = await compileProbe(stage);
      const node = await stage.node();
      try {
        const id = await node.ok(["run", "-d", "--eager", await stage.build(node), "--", "sleep", "1000"]);
        const root = `/proc/${await processOf(node, id)}/root`;
        const names = await writeNames(stage, native);
        const ours: Times[] = [];
        const theirs: Times[] = [];
        await measure(probe, root, names);
        await measure(probe, native, names);
        for (let round = 0; round < rounds; round++) {
          ours.push(await measure(probe, root, names));
          theirs.push(await measure(probe, native, names));
        }
        tell(`${rounds} rounds`);
        return operations.map((operation) => {
          const a = ours.map((times) => times[operation]);
          const b = theirs.map((times) => times[operation]);
          const detail = {
            oursNanos: samples(a),
            overlayNanos: samples(b),
            controlOurs: control(a),
            controlOverlay: control(b),
          };
          return figure(`warm-ratios/${operation}`, median(a) / median(b), "", 1.5, detail);
        });
      } finally {
        await node.discard();
        await run(["umount", native]);
      }
    }),
};

async function extractedOverlay(stage: Stage): Promise<string> {
  const lower = await unpack(stage.image, join(stage.dir, "extracted"));
  const [upper, work, merged] = ["upper", "work", "merged"].map((name) =>
    join(stage.dir, "overlay", name),
  ) as [string, string, string];
  for (const dir of [upper, work, merged]) await mkdir(dir, { recursive: true });
  await run([
    "mount",
    "-t",
    "overlay",
    "overlay",
    "-o",
    `lowerdir=${lower},upperdir=${upper},workdir=${work}`,
    merged,
  ]);
  return merged;
}

async function processOf(node: TestNode, id: string): Promise<number> {
  for (;;) {
    const container = await node.json<ReturnType<typeof containerShape>>(["inspect", id]);
    if (container.state === "running") break;
    if (container.state !== "preparing" && container.state !== "scheduled" && container.state !== "pending") {
      throw new Error(`the container is ${container.state}: ${container.reason}`);
    }
  }
  const { stdout } = await run(["sh", "-c", 'grep -l "$1" /proc/[0-9]*/cgroup', "sh", id]);
  const pid = stdout.match(/\/proc\/(\d+)\//)?.[1];
  if (pid === undefined) throw new Error(`container ${id} has no process`);
  return Number(pid);
}

/** Regular files of at least 4 KiB, as paths in the tree. */
async function writeNames(stage: Stage, root: string): Promise<string> {
  const { stdout } = await run(["find", "usr/lib", "-type", "f", "-size", "+8"], { cwd: root });
  const names = stdout.trim().split("\n").sort();
  const step = Math.max(1, Math.floor(names.length / 2000));
  const path = join(stage.dir, "names");
  await writeFile(path, `${names.filter((_, index) => index % step === 0).join("\n")}\n`);
  return path;
}

/** A program in C: what is measured takes less than a microsecond, and an interpreter would hide it. */
async function compileProbe(stage: Stage): Promise<string> {
  const path = join(stage.dir, "probe");
  await run(["gcc", "-O2", "-static", "-o", path, join(import.meta.dir, "probe.c")], { timeoutMs: 60_000 });
  return path;
}

async function measure(probe: string, root: string, names: string): Promise<Times> {
  const { stdout } = await run([probe, root, names], { timeoutMs: 120_000 });
  return JSON.parse(stdout) as Times;
}
