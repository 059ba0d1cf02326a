import { join } from "node:path";
import { httpImage } from "../kit/http-image.ts";
import { type Load, RunningLoad } from "../kit/load.ts";
import type { TestNode } from "../kit/node.ts";
import { type Benchmark, type Figure, figure, median, samples } from "./figure.ts";
import type { Stage } from "./stage.ts";

const loadMs = 1_500;
const manyConnections = 16;

/**
 * What an endpoint's gateway takes of a request: the same container's server is asked through the gateway of a `dev` node and at its
 * own address, in turn; and how long the first byte takes where no container is there, of a large image whose trace and index are
 * known, over the link.
 */
export const gateway: Benchmark = {
  name: "gateway",
  about: "requests through the gateway against those to the container itself",
  async run({ stage, rounds, tell }) {
    return await overhead(stage, rounds(7), tell);
  },
};

async function overhead(stage: Stage, rounds: number, tell: (text: string) => void): Promise<Figure[]> {
  const reference = await stage.pushed(await httpImage(), "bench/http:1");
  const node = await stage.node();
  try {
    const image = await stage.build(node, reference);
    await node.ok(["endpoint", "deploy", "web", image, "--min", "1", "--max", "1"]);
    const container = await containerOf(node, "web");
    const through = {
      url: `${node.url}/endpoint/web`,
      headers: [`Authorization: Bearer ${await tokenOf(node)}`],
    };
    const direct = { url: `http://${container.address}:8000/`, headers: [] as string[] };
    const ask = async (side: typeof direct, connections: number): Promise<Load> => {
      const load = await RunningLoad.start(side.url, {
        connections,
        milliseconds: loadMs,
        headers: side.headers,
      });
      const done = await load.whenOver();
      if (done.other + done.broken > 0) throw new Error(`requests failed: ${JSON.stringify(done)}`);
      return done;
    };
    const alone: { direct: Load; through: Load }[] = [];
    const many: { direct: Load; through: Load }[] = [];
    await ask(through, manyConnections);
    for (let round = 0; round < rounds; round++) {
      alone.push({ direct: await ask(direct, 1), through: await ask(through, 1) });
      many.push({ direct: await ask(direct, manyConnections), through: await ask(through, manyConnections) });
      const last = [alone, many].map((of) => of.at(-1) as { direct: Load; through: Load });
      tell(
        last
          .map(
            (of) => `p50 ${of.direct.p50} → ${of.through.p50} µs, ${rate(of.direct)} → ${rate(of.through)}/s`,
          )
          .join("; "),
      );
    }
    return overheadFigures(alone, many);
  } finally {
    await node.stopProcess();
    await node.discard();
  }
}

function overheadFigures(
  alone: readonly { direct: Load; through: Load }[],
  many: readonly { direct: Load; through: Load }[],
): Figure[] {
  const p50s = alone.map((of) => (of.through.p50 - of.direct.p50) / 1000);
  const rates = many.map((of) => rate(of.through));
  const directRates = many.map((of) => rate(of.direct));
  const p99s = alone.map((of) => of.through.p99 / 1000);
  return [
    figure("gateway/overhead-p50", median(p50s), "ms", 2, {
      from: [alone.map((of) => of.through.p50), alone.map((of) => of.direct.p50)],
      detail: {
        overheads: samples(p50s),
        direct: samples(alone.map((of) => of.direct.p50 / 1000)),
        through: samples(alone.map((of) => of.through.p50 / 1000)),
        throughP99: samples(p99s),
      },
    }),
    figure("gateway/requests-per-second", median(rates), "1/s", 2000, {
      better: "higher",
      from: [rates],
      detail: { connections: manyConnections, through: samples(rates), direct: samples(directRates) },
    }),
    figure("gateway/requests-per-second-direct", median(directRates), "1/s", undefined, {
      better: "higher",
      from: [directRates],
    }),
  ];
}

async function containerOf(node: TestNode, name: string): Promise<{ address: string }> {
  const { containers } = await node.json<{ containers: string[] }>(["endpoint", "inspect", name]);
  return node.json<{ address: string }>(["inspect", containers[0] ?? ""]);
}

async function tokenOf(node: TestNode): Promise<string> {
  const context = await Bun.file(join(node.home, "config/oci-node/context.json")).json();
  return (context as { token: string }).token;
}

function rate({ good, microseconds }: Load): number {
  return Math.round((good / microseconds) * 1_000_000);
}
