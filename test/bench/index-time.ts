import { rm } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { runCli } from "../kit/node.ts";
import { withCredentials } from "../kit/world.ts";
import { type Benchmark, control, figure, median, samples } from "./figure.ts";
import { onStage, type Stage } from "./stage.ts";

const rounds = 5;

/** Indexing an image that is in a registry on this machine, against nothing but unpacking the same bytes. */
export const indexTime: Benchmark = {
  name: "index-time",
  about: "`oci-node index` of the Python image, against `gzip -dc` of its layers one after another",
  run: (tell) =>
    onStage(async (stage) => {
      const ours: number[] = [];
      const plain: number[] = [];
      for (let round = 0; round < rounds; round++) {
        ours.push(await index(stage));
        plain.push(await gunzip(stage));
      }
      tell(`${median(ours).toFixed(2)} s against ${median(plain).toFixed(2)} s`);
      return [
        figure("index-time/ratio-to-gunzip", median(ours) / median(plain), "", 2, {
          oursSeconds: samples(ours),
          gunzipSeconds: samples(plain),
          controlOurs: control(ours),
          controlGunzip: control(plain),
          imageBytes: stage.image.sizeBytes,
        }),
      ];
    }),
};

async function index(stage: Stage): Promise<number> {
  const store = join(stage.dir, "store");
  const reference = stage.reference.replace(stage.proxy.host, stage.registry.host);
  const args = [
    "index",
    reference,
    "--store",
    store,
    ...withCredentials,
    "--insecure-registry",
    stage.registry.host,
  ];
  const env = { ...stage.env, HOME: stage.dir, XDG_CONFIG_HOME: stage.dir };
  const result = await runCli(stage.command, args, { env, timeoutMs: 300_000 });
  if (result.code !== 0) throw new Error(result.stderr);
  await rm(store, { recursive: true });
  return result.elapsedMs / 1000;
}

async function gunzip(stage: Stage): Promise<number> {
  const paths = stage.image.layers.map(({ digest }) =>
    join(stage.image.dir, "blobs/sha256", digest.slice(7)),
  );
  const started = performance.now();
  await run(["sh", "-c", 'for layer; do gzip -dc "$layer" > /dev/null; done', "sh", ...paths], {
    timeoutMs: 300_000,
  });
  return (performance.now() - started) / 1000;
}
