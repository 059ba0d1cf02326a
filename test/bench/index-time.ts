import { rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { pipImage } from "../kit/pip-image.ts";
import { type Benchmark, figure, median, samples } from "./figure.ts";
import type { Stage } from "./stage.ts";

/** What `oci-node index --json` says of its work. */
interface Indexed {
  readonly accessPointBytes: number;
  readonly erofsBytes: number;
  readonly inodes: number;
}

/** Indexing an image that is in a registry on this machine, against nothing but unpacking the same bytes. */
export const indexTime: Benchmark = {
  name: "index-time",
  about: "`oci-node index` of the image, against `gzip -dc` of its layers one after another",
  async run({ stage, rounds, tell }) {
    const image = await pipImage(tell);
    const reference = stage.direct(await stage.pushed(image, "bench/pip:1"));
    const ours: number[] = [];
    const plain: number[] = [];
    let indexed: Indexed | undefined;
    for (let round = 0; round < rounds(5); round++) {
      const one = await index(stage, reference);
      indexed = one.indexed;
      ours.push(one.seconds);
      plain.push(await gunzip(image));
      tell(`${ours.at(-1)?.toFixed(2)} s against ${plain.at(-1)?.toFixed(2)} s`);
    }
    const points = indexed?.accessPointBytes ?? Number.NaN;
    return [
      figure("index-time/ratio-to-gunzip", median(ours) / median(plain), "", 1.3, {
        from: [ours, plain],
        detail: { oursSeconds: samples(ours), gunzipSeconds: samples(plain), imageBytes: image.sizeBytes },
      }),
      figure("index-time/access-points", (points / image.sizeBytes) * 100, "%", 2),
      figure("index-time/erofs", (indexed?.erofsBytes ?? Number.NaN) / 1e6, "MB", undefined, {
        detail: { inodes: indexed?.inodes },
      }),
    ];
  },
};

async function index(stage: Stage, reference: string): Promise<{ seconds: number; indexed: Indexed }> {
  const store = join(stage.dir, "store");
  const result = await stage.alone(["index", reference, "--json", "--store", store, ...stage.aloneFlags]);
  await rm(store, { recursive: true });
  return { seconds: result.elapsedMs / 1000, indexed: JSON.parse(result.stdout) as Indexed };
}

async function gunzip(image: LocalImage): Promise<number> {
  const paths = image.layers.map(({ digest }) => join(image.dir, "blobs/sha256", digest.slice(7)));
  const started = performance.now();
  const script = 'for layer; do gzip -dc "$layer" > /dev/null; done';
  await run(["sh", "-c", script, "sh", ...paths], { timeoutMs: 300_000 });
  return (performance.now() - started) / 1000;
}
