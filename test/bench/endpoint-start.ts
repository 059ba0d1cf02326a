import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type Client, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { EndpointService } from "../../src/gen/oci_node/v1/endpoint_service_pb.ts";
import { run } from "../../src/std/spawn.ts";
import type { TestNode } from "../kit/node.ts";
import { pipImage } from "../kit/pip-image.ts";
import { contextOf } from "../kit/raw-call.ts";
import type { Container } from "../kit/world.ts";
import { type Benchmark, type Figure, figure, median, samples } from "./figure.ts";
import type { Stage } from "./stage.ts";

const source = 'def handler():\n    return {"status": "success"}\n';
const name = "bench";
const upMs = 60_000;

type Endpoints = Client<typeof EndpointService>;

interface Sample {
  readonly milliseconds: number;
  /** Phase → since the request's arrival, in milliseconds. */
  readonly phases: Readonly<Record<string, number>>;
  readonly bytes: number;
}

/**
 * From a request to the first byte of its answer, for an endpoint without a container: a Python function without imports, in
 * the large image, of which the node that was just started has index and trace but no byte. Then the same on that node, which
 * has the bytes by now.
 */
export const endpointStart: Benchmark = {
  name: "endpoint-start",
  about: "a request to an endpoint without containers: a Python function in the image of 720 MB",
  async run({ stage, rounds, tell }) {
    const reference = await stage.pushed(await pipImage(tell), "bench/pip:1");
    const imageId = await stage.builtBefore(reference);
    await recordTrace(stage, imageId);
    const cold: Sample[] = [];
    const known: Sample[] = [];
    for (let round = 0; round < rounds(7); round++) {
      await stage.forget({ traces: false });
      const node = await stage.node();
      try {
        cold.push(await firstByte(stage, node));
        await gone(await endpointsOf(node));
        known.push(await firstByte(stage, node));
      } finally {
        await node.stopProcess();
        await node.discard();
      }
      tell(
        `cold ${cold.at(-1)?.milliseconds.toFixed(0)} ms, known ${known.at(-1)?.milliseconds.toFixed(0)} ms`,
      );
    }
    return [...figures("cold", cold, 1000), ...figures("known", known)];
  },
};

function figures(kind: string, of: readonly Sample[], goal?: number): Figure[] {
  const milliseconds = of.map((sample) => sample.milliseconds);
  const names = Object.keys(of[0]?.phases ?? {});
  const phases = Object.fromEntries(
    names.map((phase) => [phase, median(of.map((sample) => sample.phases[phase] ?? Number.NaN))]),
  );
  return [
    figure(`endpoint-start/${kind}`, median(milliseconds), "ms", goal, {
      from: [milliseconds],
      detail: {
        milliseconds: samples(milliseconds),
        phases,
        fetchedBytes: median(of.map((sample) => sample.bytes)),
      },
    }),
  ];
}

/** Deploys the function, and lets a start of it be seen that reads from the registry. */
async function recordTrace(stage: Stage, imageId: string): Promise<void> {
  await stage.forget();
  const node = await stage.node();
  try {
    const endpoints = await endpointsOf(node);
    const codeSha256 = await upload(stage, endpoints);
    await endpoints.deployEndpoint({
      name,
      spec: { image: imageId, handler: { codeSha256, name: "app:handler" }, keepWarmMs: 1000 },
    });
    const signal = AbortSignal.timeout(upMs);
    for await (const { endpoint } of endpoints.watchEndpoint({ name }, { signal })) {
      if (endpoint?.active !== undefined) break;
      if (endpoint?.latest?.reason)
        throw new Error(`the function did not come up: ${endpoint.latest.reason}`);
    }
    await answer(node);
    await gone(endpoints);
  } finally {
    await node.stopProcess();
    await node.discard();
  }
}

async function upload(stage: Stage, endpoints: Endpoints): Promise<string> {
  const folder = join(stage.dir, "code");
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "app.py"), source);
  const options = ["--format=ustar", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"];
  await run(["tar", ...options, "-C", folder, "-cf", `${folder}.tar`, "app.py"]);
  const data = gzipSync(await Bun.file(`${folder}.tar`).bytes());
  const sha256 = createHash("sha256").update(data).digest("hex");
  await endpoints.uploadCode(
    (async function* () {
      yield { sha256, data };
    })(),
  );
  return sha256;
}

async function endpointsOf(node: TestNode): Promise<Endpoints> {
  const { token } = await contextOf(node);
  const transport = createConnectTransport({
    baseUrl: node.url,
    httpVersion: "2",
    interceptors: [
      (next) => (request) => {
        request.header.set("authorization", `Bearer ${token}`);
        return next(request);
      },
    ],
  });
  return createClient(EndpointService, transport);
}

/** Resolves when the endpoint has no container any more. */
async function gone(endpoints: Endpoints): Promise<void> {
  const signal = AbortSignal.timeout(upMs);
  for await (const { endpoint } of endpoints.watchEndpoint({ name }, { signal }))
    if (endpoint?.containerIds.length === 0) return;
}

async function answer(node: TestNode): Promise<number> {
  const { token } = await contextOf(node);
  const started = performance.now();
  const response = await fetch(`${node.url}/endpoint/${name}`, {
    headers: { authorization: `Bearer ${token}` },
  });
  const reader = response.body?.getReader();
  const first = await reader?.read();
  const milliseconds = performance.now() - started;
  const text = new TextDecoder().decode(first?.value);
  if (response.status !== 200 || !text.includes("success"))
    throw new Error(`the endpoint answered ${response.status}: ${text}`);
  await reader?.cancel();
  return milliseconds;
}

async function firstByte(stage: Stage, node: TestNode): Promise<Sample> {
  await stage.link.resetStats();
  const before = Date.now();
  const milliseconds = await answer(node);
  const { bytes } = await stage.link.stats();
  const living = await node.json<Container[]>(["ps"]);
  const container = await node.json<Container>(["inspect", living[0]?.id ?? ""]);
  const phases = container.phases.map(({ name: phase, at }) => [phase, Date.parse(at ?? "") - before]);
  return { milliseconds, bytes, phases: Object.fromEntries(phases) };
}
