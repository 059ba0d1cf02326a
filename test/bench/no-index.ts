import { rm } from "node:fs/promises";
import { run } from "../../src/std/spawn.ts";
import { pipImage, pipImports } from "../kit/pip-image.ts";
import { withCredentials } from "../kit/world.ts";
import { Eager } from "./eager.ts";
import { type Benchmark, figure, median, samples } from "./figure.ts";
import { LazyTree } from "./mount.ts";
import type { Stage } from "./stage.ts";

/** An image that nobody indexed yet: mounted without a node, and run on a node that never saw it; against eager pulls. */
export const noIndex: Benchmark = {
  name: "no-index",
  about:
    "first `mount` and first `run` of an unknown image to the end of a program in it, against eager pulls",
  async run({ stage, rounds, tell }) {
    const reference = await stage.pushed(await pipImage(tell), "bench/pip:1");
    const eager = new Eager(stage, reference, pipImports);
    const mounts: number[] = [];
    const runs: number[] = [];
    const count = rounds(5);
    for (let round = 1; round <= count; round++) {
      mounts.push(await firstMount(stage, reference));
      runs.push(await firstRun(stage, reference));
      await eager.round("faster");
      const last = [mounts, runs, eager.seconds()].map((of) => of.at(-1)?.toFixed(2));
      tell(`${round} of ${count}: mount ${last[0]} s, run ${last[1]} s, against ${last[2]} s`);
    }
    const theirs = eager.seconds();
    const versus = (name: string, ours: number[]) =>
      figure(name, median(ours) / median(theirs), "", 1, {
        from: [ours, theirs],
        detail: { oursSeconds: samples(ours), eagerSeconds: samples(theirs), eager: eager.faster },
      });
    return [versus("no-index/mount-to-eager", mounts), versus("no-index/run-to-eager", runs)];
  },
};

async function firstMount(stage: Stage, reference: string): Promise<number> {
  const tree = new LazyTree(stage, "unknown");
  await tree.forget({ index: true });
  const mounting = await tree.up(reference);
  try {
    const started = performance.now();
    await run(["chroot", tree.root, ...pipImports], { timeoutMs: 300_000 });
    return mounting + (performance.now() - started) / 1000;
  } finally {
    await tree.down();
    await tree.forget({ index: true });
  }
}

async function firstRun(stage: Stage, reference: string): Promise<number> {
  await rm(stage.dataDir, { recursive: true, force: true });
  await stage.chill();
  const node = await stage.node();
  try {
    const started = performance.now();
    await node.ok(["run", ...withCredentials, reference, "--", ...pipImports], {
      env: stage.env,
      timeoutMs: 300_000,
    });
    return (performance.now() - started) / 1000;
  } finally {
    await node.stopProcess();
    await node.discard();
    await rm(stage.dataDir, { recursive: true, force: true });
  }
}
