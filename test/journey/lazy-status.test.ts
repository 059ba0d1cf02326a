import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { lazyStatusShape } from "../../src/cli/lazy-status.ts";
import { TestNode } from "../kit/node.ts";
import { pythonImage } from "../kit/python-image.ts";
import { type Container, type Image, World, withCredentials } from "../kit/world.ts";

type LazyStatus = ReturnType<typeof lazyStatusShape>;

/** The image with Python: a start of it reads many spans, and leaves many. */
const command = ["--", "python3", "-c", "import json, decimal; print(decimal.Decimal(1) / 8)"];

let dir: string;
let world: World;
let image: Image;
let args: readonly string[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-lazy-"));
  // The database runs as a user of its own, who has to pass through.
  await chmod(dir, 0o755);
  // What is read is all that is fetched: however fast the registry is, a start does not complete the image.
  const config = join(dir, "config.toml");
  await writeFile(config, "[worker]\nbackground_fetch = false\n", { mode: 0o600 });
  args = ["--config", config];
  world = await World.start({ node: { dataDir: join(dir, "data"), args } });
  const reference = await world.push("team/python:1", { image: await pythonImage() });
  const build = ["image", "build", "--index-only", reference, ...withCredentials];
  image = await world.node.json<Image>(build, { env: world.env });
}, 600_000);
afterAll(async () => {
  await world.stop();
  await rm(dir, { recursive: true, force: true });
});

async function statusOf(node: TestNode): Promise<LazyStatus> {
  return await node.json<LazyStatus>(["image", "inspect", "--lazy", image.id]);
}

/** Asks until the status is so: a trace is written after the container's end was told. */
async function statusOnce(node: TestNode, isSo: (status: LazyStatus) => boolean): Promise<LazyStatus> {
  for (const deadline = Date.now() + 30_000; Date.now() < deadline; ) {
    const status = await statusOf(node);
    if (isSo(status)) return status;
  }
  throw new Error("the lazy status did not become what was expected");
}

function pythonStarts(traces: LazyStatus["traces"]): number | undefined {
  return traces.find(({ program }) => program === "python3")?.starts;
}

test("an image's lazy status tells what is cached, fetched and traced, and the next node's start follows the trace", async () => {
  const before = await statusOf(world.node);
  expect(before.traces).toEqual([]);
  expect(before.workers).toHaveLength(1);
  expect(before.workers[0]?.mounts).toEqual([]);

  expect(await world.node.ok(["run", image.id, ...command])).toBe("0.125");
  const traced = await statusOnce(world.node, ({ traces }) => pythonStarts(traces) === 1);
  const [trace] = traced.traces;
  expect(trace?.ranges).toBeGreaterThan(5);
  const layers = traced.workers[0]?.layers ?? [];
  expect(layers).toHaveLength(image.layers);
  const cached = layers.filter(({ spansCached, cachedBytes }) => spansCached > 0 && cachedBytes > 0);
  expect(cached.length).toBeGreaterThan(0);
  expect(layers.every(({ complete }) => complete)).toBe(false);

  const read = "cat /usr/share/fonts/truetype/*/*.ttf > /dev/null && exec sleep 1000";
  const id = await world.node.ok(["run", "-d", image.id, "--", "sh", "-c", read]);
  const during = await statusOnce(
    world.node,
    ({ workers }) => (workers[0]?.mounts[0]?.fetchedBytes ?? 0) > 0,
  );
  expect(during.workers[0]?.mounts).toMatchObject([{ users: 1, served: true }]);
  await world.node.ok(["stop", id]);

  const text = await world.node.ok(["image", "inspect", "--lazy", image.id]);
  for (const word of ["worker", "LAYER", "TRACE", "python3", image.manifestDigest])
    expect(text).toContain(word);

  // Another node with the same index and nothing of the image.
  await world.node.stopProcess();
  await rm(join(dir, "data/cache"), { recursive: true });
  const insecureRegistries = [...world.registry.insecureHosts];
  const next = await TestNode.start({ dataDir: join(dir, "data"), insecureRegistries, args });
  try {
    expect((await statusOf(next)).workers[0]?.layers.every(({ spansCached }) => spansCached === 0)).toBe(
      true,
    );
    expect(await next.ok(["run", image.id, ...command])).toBe("0.125");
    const containers = await next.json<Container[]>(["ps", "--all"]);
    const last = containers.toSorted((a, b) => (a.createdAt ?? "").localeCompare(b.createdAt ?? "")).at(-1);
    const { transfer } = await next.json<Container>(["inspect", last?.id ?? ""]);
    expect(transfer?.fetchedBytes).toBeLessThanOrEqual(1.3 * (trace?.compressedBytes ?? 0));
    await statusOnce(next, ({ traces }) => pythonStarts(traces) === 2);
  } finally {
    await next.stop();
  }
}, 120_000);
