import type { TestNode } from "../kit/node.ts";
import { pipImage } from "../kit/pip-image.ts";
import type { Container } from "../kit/world.ts";
import { type Benchmark, type Figure, figure, median, samples } from "./figure.ts";

interface Sample {
  /** From the request's arrival to the exit, in milliseconds. */
  readonly container: number;
  /** Of the command line, with its own start and end. */
  readonly cli: number;
  readonly phases: Readonly<Record<string, number>>;
}

/**
 * `true` in the large image, request to exit: on a node that was just started with nothing of the image in cache, access
 * not proved yet; then once more on that node, which has index, grant and the few bytes that `true` needs.
 */
export const startLatency: Benchmark = {
  name: "start-latency",
  about:
    "`true` in the large image, from request to exit: everything cold, and on a node that knows the image",
  async run({ stage, rounds, tell }) {
    const reference = await stage.pushed(await pipImage(tell), "bench/pip:1");
    const id = await stage.builtBefore(reference);
    const cold: Sample[] = [];
    const known: Sample[] = [];
    for (let round = 0; round < rounds(7); round++) {
      await stage.forget();
      const node = await stage.node();
      try {
        cold.push(await start(node, id));
        known.push(await start(node, id));
      } finally {
        await node.stopProcess();
        await node.discard();
      }
      const last = [cold, known].map((of) => `${of.at(-1)?.container} (${of.at(-1)?.cli.toFixed(0)})`);
      tell(`cold ${last[0]} ms, known ${last[1]} ms`);
    }
    return [...figures("cold", cold, 400), ...figures("known", known, 150)];
  },
};

function figures(name: string, of: readonly Sample[], goal: number): Figure[] {
  const container = of.map((sample) => sample.container);
  const cli = of.map((sample) => sample.cli);
  const names = Object.keys(of[0]?.phases ?? {});
  const phases = Object.fromEntries(
    names.map((phase) => [phase, median(of.map((sample) => sample.phases[phase] ?? Number.NaN))]),
  );
  return [
    figure(`start-latency/${name}`, median(container), "ms", goal, {
      from: [container],
      detail: { milliseconds: samples(container), phases },
    }),
    figure(`start-latency/${name}-command-line`, median(cli), "ms", undefined, { from: [cli] }),
  ];
}

async function start(node: TestNode, image: string): Promise<Sample> {
  const started = performance.now();
  await node.ok(["run", image, "--", "true"]);
  const cli = performance.now() - started;
  const all = await node.json<Container[]>(["ps", "--all"]);
  const newest = all.toSorted((a, b) => (a.createdAt ?? "").localeCompare(b.createdAt ?? "")).at(-1);
  const container = await node.json<Container>(["inspect", newest?.id ?? ""]);
  const since = (at: string | null): number => Date.parse(at ?? "") - Date.parse(container.createdAt ?? "");
  const phases = Object.fromEntries(container.phases.map((phase) => [phase.name, since(phase.at)]));
  return { container: since(container.finishedAt), cli, phases };
}
