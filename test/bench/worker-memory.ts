import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import { type LocalImage, layerOf, writeLayout } from "../kit/oci-layout.ts";
import { pipImage } from "../kit/pip-image.ts";
import { tarOf } from "../kit/tar.ts";
import { type Benchmark, figure, median, samples } from "./figure.ts";
import { anonymousMegabytes, type Stage } from "./stage.ts";
import { WorkerAlone } from "./worker.ts";

const images = 100;

/** Reads every file of the image again and again. */
const soak = `import os
while True:
    for folder, _, names in os.walk("/usr"):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.path.isfile(path): continue
            with open(path, "rb") as file:
                while file.read(1 << 20): pass`;

/**
 * Anonymous memory of a worker's process: with nothing, with a hundred mounted images of as many idle containers, and
 * while a container reads a large image over and over, with the page cache dropped so that the reads arrive.
 */
export const workerMemory: Benchmark = {
  name: "worker-memory",
  about: `anonymous memory of a worker with ${images} images mounted, idle and during a read soak`,
  async run({ stage, full, tell }) {
    const worker = await WorkerAlone.start(stage);
    try {
      const { pid } = worker.worker;
      const empty = await settled(pid);
      for (let number = 0; number < images; number++) {
        const image = await distinctImage(stage, number);
        const reference = stage.direct(await stage.pushed(image, `bench/small:${number}`));
        await worker.ok(["run", "-d", await worker.build(reference), "--", "sleep", "100000"]);
        if (number % 25 === 24) tell(`${number + 1} containers`);
      }
      const idle = await settled(pid);
      tell(`${empty.toFixed(0)} MB with nothing, ${idle.toFixed(0)} with ${images} images`);
      const reference = await stage.pushed(await pipImage(tell), "bench/pip:1");
      const reader = await worker.build(reference);
      await worker.ok(["run", "-d", reader, "--", "python3", "-c", soak]);
      const seconds = full ? 600 : 60;
      const during = await watch(pid, seconds);
      const quarter = Math.floor(during.length / 4);
      const [first, last] = [median(during.slice(0, quarter)), median(during.slice(-quarter))];
      tell(`${first.toFixed(0)} MB early in the soak of ${seconds} s, ${last.toFixed(0)} late`);
      const detail = { images, emptyMegabytes: empty };
      return [
        figure("worker-memory/100-images", idle, "MB", 250, { detail }),
        figure("worker-memory/soak-late-to-early", last / first, "", 1.1, {
          detail: { megabytes: samples(during), seconds },
        }),
      ];
    } finally {
      await worker.stop();
    }
  },
};

/** The shell's image with one more layer, which makes it another image. */
async function distinctImage(stage: Stage, number: number): Promise<LocalImage> {
  const base = await busyboxImage();
  const config = await Bun.file(join(base.dir, "blobs/sha256", await configOf(base))).json();
  const diffIds = config.rootfs.diff_ids as string[];
  const layers = await Promise.all(
    base.layers.map(async ({ digest }, index) => ({
      compression: "gzip" as const,
      blob: await Bun.file(join(base.dir, "blobs/sha256", digest.slice(7))).bytes(),
      diffId: diffIds[index] ?? "",
    })),
  );
  const own = layerOf(tarOf([{ path: "number", data: `${number}\n` }]));
  const dir = join(stage.dir, "small");
  await rm(dir, { recursive: true, force: true });
  return await writeLayout(dir, [...layers, own], config.config);
}

async function configOf(image: LocalImage): Promise<string> {
  const manifest = await Bun.file(join(image.dir, "blobs/sha256", image.manifestDigest.slice(7))).json();
  return (manifest.config.digest as string).slice(7);
}

/** The median over ten seconds, after ten in which what was just done is cleaned up. */
async function settled(pid: number): Promise<number> {
  await Bun.sleep(10_000);
  const values: number[] = [];
  for (let second = 0; second < 10; second++) {
    values.push(await anonymousMegabytes(pid));
    await Bun.sleep(1000);
  }
  return median(values);
}

/** One value per second; the page cache goes every five seconds. */
async function watch(pid: number, seconds: number): Promise<number[]> {
  const values: number[] = [];
  for (let second = 0; second < seconds; second++) {
    await Bun.sleep(1000);
    if (second % 5 === 0) await writeFile("/proc/sys/vm/drop_caches", "1");
    values.push(await anonymousMegabytes(pid));
  }
  return values;
}
