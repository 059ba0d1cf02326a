import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { withAuthFile } from "../kit/push.ts";
import { pythonImports } from "../kit/python-image.ts";
import { type Benchmark, control, type Figure, figure, median, samples } from "./figure.ts";
import { dropCaches, onStage, type Stage } from "./stage.ts";

const rounds = 6;

interface Sample {
  readonly seconds: number;
  readonly bytes: number;
  readonly requests: number;
}

/** From nothing of the image on this machine to the end of a program in it, against a full pull, over the same link. */
export const coldStart: Benchmark = {
  name: "cold-start",
  about:
    "start of `python3 -c 'import numpy, pandas'` with nothing cached, against skopeo copy + umoci unpack + runc run",
  run: (tell) =>
    onStage(async (stage) => {
      const lazy: Sample[] = [];
      const full: Sample[] = [];
      const builder = await stage.node();
      const image = await stage.build(builder);
      await builder.stopProcess();
      for (let round = 0; round < rounds; round++) {
        lazy.push(await lazyStart(stage, image));
        full.push(await fullPull(stage));
        tell(
          `${round + 1} of ${rounds}: ${lazy.at(-1)?.seconds.toFixed(2)} s against ${full.at(-1)?.seconds.toFixed(2)} s`,
        );
      }
      return figures(stage, lazy, full);
    }),
};

function figures(stage: Stage, lazy: readonly Sample[], full: readonly Sample[]): Figure[] {
  const seconds = (of: readonly Sample[]): number[] => of.map((sample) => sample.seconds);
  const ratio = median(seconds(lazy)) / median(seconds(full));
  const bytes = median(lazy.map((sample) => sample.bytes));
  const detail = {
    oursSeconds: samples(seconds(lazy)),
    fullPullSeconds: samples(seconds(full)),
    controlOurs: control(seconds(lazy)),
    controlFullPull: control(seconds(full)),
  };
  return [
    figure("cold-start/ratio-to-full-pull", ratio, "", 0.5, detail),
    figure("cold-start/fetched-share", bytes / stage.image.sizeBytes, "", 1, {
      fetchedBytes: bytes,
      imageBytes: stage.image.sizeBytes,
      requests: samples(lazy.map((sample) => sample.requests)),
    }),
  ];
}

/** One run on a node that was just started and has the image's index, but none of its bytes. */
async function lazyStart(stage: Stage, image: string): Promise<Sample> {
  await stage.forget();
  const node = await stage.node();
  try {
    await stage.proxy.resetStats();
    const started = performance.now();
    await node.ok(["run", image, "--", ...pythonImports]);
    return { seconds: (performance.now() - started) / 1000, ...(await stage.proxy.stats()) };
  } finally {
    await node.stopProcess();
  }
}

async function fullPull(stage: Stage): Promise<Sample> {
  const layout = join(stage.dir, "full");
  const bundle = join(stage.dir, "bundle");
  await dropCaches();
  await stage.proxy.resetStats();
  try {
    return await withAuthFile(stage.proxy.host, stage.registry.account, async (authFile) => {
      const copy = [
        "skopeo",
        "copy",
        "--quiet",
        "--insecure-policy",
        "--src-tls-verify=false",
        "--src-authfile",
        authFile,
      ];
      const started = performance.now();
      await run([...copy, `docker://${stage.reference}`, `oci:${layout}:latest`], { timeoutMs: 300_000 });
      await run(["umoci", "--log=error", "unpack", "--image", `${layout}:latest`, bundle], {
        timeoutMs: 300_000,
      });
      await setCommand(bundle);
      await run(["runc", "run", "--bundle", bundle, `oci-node-bench-${process.pid}`], { timeoutMs: 300_000 });
      return { seconds: (performance.now() - started) / 1000, ...(await stage.proxy.stats()) };
    });
  } finally {
    await rm(layout, { recursive: true, force: true });
    await rm(bundle, { recursive: true, force: true });
  }
}

async function setCommand(bundle: string): Promise<void> {
  const path = join(bundle, "config.json");
  const config = JSON.parse(await readFile(path, "utf8"));
  config.process.args = pythonImports;
  config.process.terminal = false;
  await writeFile(path, JSON.stringify(config));
}
