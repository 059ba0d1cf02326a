import type { TestNode } from "../kit/node.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { pipImage, pipImports } from "../kit/pip-image.ts";
import { Eager, LocalTree } from "./eager.ts";
import { type Benchmark, type Figure, figure, median, samples } from "./figure.ts";
import { type Stage, usualLink } from "./stage.ts";

const latencies = [0, 20, 80] as const;

/** How a lazy start went. */
interface Sample {
  readonly seconds: number;
  readonly bytes: number;
  readonly requests: number;
}

/** By latency in milliseconds. */
type ByLatency = Record<(typeof latencies)[number], Sample[]>;

interface Measured {
  readonly untraced: ByLatency;
  readonly traced: ByLatency;
  readonly local: number[];
  readonly eager: Eager;
}

const none = (): ByLatency => ({ 0: [], 20: [], 80: [] });
const seconds = (of: readonly Sample[]): number[] => of.map((sample) => sample.seconds);

/**
 * From the command that starts a container to its end, with the image's index there but no byte of it: without a trace
 * and with one that another node recorded; against eager pulls over the same link, and against the tree on the local disk.
 */
export const coldStart: Benchmark = {
  name: "cold-start",
  about: "`import numpy, pandas, sklearn` in an image of 720 MB with nothing cached, against eager pulls",
  async run(run) {
    const { stage, tell } = run;
    const image = await pipImage(tell);
    const reference = await stage.pushed(image, "bench/pip:1");
    const id = await stage.builtBefore(reference);
    const local = await LocalTree.unpack(stage, image);
    const measured: Measured = {
      untraced: none(),
      traced: none(),
      local: [],
      eager: new Eager(stage, reference, pipImports),
    };
    const rounds = run.rounds(5);
    for (let round = 1; round <= rounds; round++) {
      for (const latency of latencies) {
        await stage.setLink({ ...usualLink, delayMs: latency });
        measured.untraced[latency].push(await lazyStart(stage, id, "without trace"));
        measured.traced[latency].push(await lazyStart(stage, id, "with trace"));
      }
      await stage.setLink();
      measured.local.push(await local.coldSeconds(pipImports));
      // The slower of the two is measured twice, to know that it is.
      await measured.eager.round(round <= 2 ? "both" : "faster");
      tell(`${round} of ${rounds}: ${told(measured)}`);
    }
    return figures(image, measured);
  },
};

function told({ untraced, traced, local, eager }: Measured): string {
  const last = (values: readonly number[]): string => values.at(-1)?.toFixed(2) ?? "";
  const lazy = latencies.map((ms) => `${ms} ms ${last(seconds(untraced[ms]))}/${last(seconds(traced[ms]))}`);
  const ended = (way: "skopeo" | "containerd"): string => last(eager.samples[way].map((one) => one.ended));
  return `first/traced ${lazy.join(", ")}; local ${last(local)}; skopeo ${ended("skopeo")}, containerd ${ended("containerd")} s`;
}

function figures(image: LocalImage, { untraced, traced, local, eager }: Measured): Figure[] {
  const full = eager.seconds();
  const versus = (name: string, ours: number[], theirs: number[], goal: number): Figure =>
    figure(`cold-start/${name}`, median(ours) / median(theirs), "", goal, {
      from: [ours, theirs],
      detail: { oursSeconds: samples(ours), theirsSeconds: samples(theirs), eager: eager.faster },
    });
  const bytes = (of: readonly Sample[]): number => median(of.map((sample) => sample.bytes));
  const transfer = (of: readonly Sample[]) => ({
    fetchedBytes: bytes(of),
    imageBytes: image.sizeBytes,
    requests: samples(of.map((sample) => sample.requests)),
  });
  return [
    versus("first/to-eager", seconds(untraced[20]), full, 0.4),
    versus("traced/to-eager", seconds(traced[20]), full, 0.25),
    versus("traced/to-local-tree", seconds(traced[20]), local, 1.5),
    versus("first/80-to-20-ms", seconds(untraced[80]), seconds(untraced[20]), 1.5),
    versus("traced/80-to-20-ms", seconds(traced[80]), seconds(traced[20]), 1.5),
    versus("first/0-ms-to-eager", seconds(untraced[0]), full, 0.4),
    versus("traced/0-ms-to-eager", seconds(traced[0]), full, 0.25),
    ...(["skopeo", "containerd"] as const).map((way) => {
      const of = eager.samples[way].map((sample) => sample.ended);
      return figure(`cold-start/eager-${way}`, median(of), "s", undefined, { from: [of] });
    }),
    figure("cold-start/first/fetched-share", bytes(untraced[20]) / image.sizeBytes, "", 1, {
      detail: transfer(untraced[20]),
    }),
    figure("cold-start/traced/fetched-share", bytes(traced[20]) / image.sizeBytes, "", 1, {
      detail: transfer(traced[20]),
    }),
  ];
}

/** One run on a node that was just started and has the image's index, but none of its bytes. */
async function lazyStart(stage: Stage, image: string, how: "without trace" | "with trace"): Promise<Sample> {
  await stage.forget({ traces: how === "without trace" });
  const node: TestNode = await stage.node();
  try {
    await stage.link.resetStats();
    const started = performance.now();
    await node.ok(["run", image, "--", ...pipImports], { timeoutMs: 300_000 });
    const took = (performance.now() - started) / 1000;
    const { bytes, requests } = await stage.link.stats();
    return { seconds: took, bytes, requests };
  } finally {
    await node.stopProcess();
    await node.discard();
  }
}
