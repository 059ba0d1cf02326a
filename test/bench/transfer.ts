import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { decodeTrace } from "../../src/index/trace.ts";
import { pipImage, pipImports } from "../kit/pip-image.ts";
import { type Benchmark, figure, median, samples } from "./figure.ts";
import type { Stage } from "./stage.ts";

/**
 * Bytes over the link for a start, all answers of the registry included, per compressed byte of the spans that the program
 * read, as the trace of that start has them. Without background fetching, which is on top by intention.
 */
export const transfer: Benchmark = {
  name: "transfer",
  about: "bytes fetched for a start, per compressed byte of the spans that the program read",
  async run({ stage, rounds, tell }) {
    const reference = await stage.pushed(await pipImage(tell), "bench/pip:1");
    const image = await stage.builtBefore(reference);
    const config = join(stage.dir, "config.toml");
    await writeFile(config, "[worker]\nbackground_fetch = false\n", { mode: 0o600 });
    const ratios = { first: [] as number[], traced: [] as number[] };
    let read = 0;
    for (let round = 0; round < rounds(5); round++) {
      for (const how of ["first", "traced"] as const) {
        await stage.forget({ traces: how === "first" });
        const fetched = await fetchedBytes(stage, config, image);
        read = await readBytes(stage);
        ratios[how].push(fetched / read);
      }
      const megabytes = (read / 1e6).toFixed(1);
      tell(
        `first ${ratios.first.at(-1)?.toFixed(2)}, traced ${ratios.traced.at(-1)?.toFixed(2)}; ${megabytes} MB read`,
      );
    }
    const detail = (of: number[]) => ({ ratios: samples(of), readBytes: read });
    return [
      figure("transfer/traced", median(ratios.traced), "", 1.3, {
        from: [ratios.traced],
        detail: detail(ratios.traced),
      }),
      figure("transfer/first", median(ratios.first), "", undefined, {
        from: [ratios.first],
        detail: detail(ratios.first),
      }),
    ];
  },
};

async function fetchedBytes(stage: Stage, config: string, image: string): Promise<number> {
  const node = await stage.node(["--config", config]);
  try {
    await stage.link.resetStats();
    await node.ok(["run", image, "--", ...pipImports], { timeoutMs: 120_000 });
    const { bytes } = await stage.link.stats();
    return bytes;
  } finally {
    await node.stopProcess();
    await node.discard();
  }
}

/** Compressed bytes of the spans that the latest start read. */
async function readBytes(stage: Stage): Promise<number> {
  const dir = join(stage.dataDir, "index/traces");
  let bytes = 0;
  for (const path of new Bun.Glob("**/*.json").scanSync({ cwd: dir })) {
    const trace = decodeTrace(await readFile(join(dir, path), "utf8"));
    if (trace === undefined) throw new Error(`${path} is not a trace`);
    for (const range of trace.ranges) if (range.missedStarts === 0) bytes += range.compressedBytes;
  }
  if (bytes === 0) throw new Error("the start left no trace");
  return bytes;
}
