import { afterAll, beforeAll, expect, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { lazyStatusShape } from "../../src/cli/lazy-status.ts";
import { leftovers, sweep } from "../kit/leftovers.ts";
import { TestNode } from "../kit/node.ts";
import { type Container, type Image, World } from "../kit/world.ts";

let scratch: string;
let world: World;
let node: TestNode;
let image: Image;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "oci-node-prepared-"));
  await chmod(scratch, 0o755);
  world = await World.start({ registry: { auth: "bearer" }, node: { dataDir: join(scratch, "data") } });
  node = world.node;
  image = await world.build("team/app:1", { throughProxy: true });
}, 120_000);
afterAll(async () => {
  await node.discard();
  await world.node.discard();
  await world.proxy.stop();
  await world.registry.stop();
  await sweep(scratch);
  await rm(scratch, { recursive: true, force: true });
});

async function mounts() {
  const status = await node.json<ReturnType<typeof lazyStatusShape>>([
    "image",
    "inspect",
    "--lazy",
    image.id,
  ]);
  return status.workers.flatMap((worker) => worker.mounts);
}

test("an image that is mounted for a container to come is gone with its node, and the next one runs the container", async () => {
  await world.proxy.setFaults({ match: "^(GET|HEAD) .*/manifests/", action: { kind: "hang" } });
  const id = await node.ok(["run", "-d", image.id]);
  while ((await mounts()).length === 0) expect(id).not.toBe("");
  expect(await mounts()).toMatchObject([{ users: 1, fetchedBytes: 0 }]);
  expect((await node.json<Container>(["inspect", id])).state).toBe("scheduled");
  await node.crash();

  await world.proxy.setFaults();
  node = await TestNode.start({
    dataDir: join(scratch, "data"),
    insecureRegistries: [...world.registry.insecureHosts, world.proxy.host],
  });
  const deadline = Date.now() + 60_000;
  for (let state = ""; state !== "exited"; ) {
    state = (await node.json<Container>(["inspect", id])).state;
    expect(Date.now()).toBeLessThan(deadline);
  }
  expect(await node.ok(["logs", id])).toBe("hello from the image");
  while ((await mounts()).length > 0) expect(Date.now()).toBeLessThan(deadline);
  expect(await node.stopProcess()).toBe(0);
  expect(await leftovers(join(scratch, "data"), [id])).toEqual([]);
}, 120_000);
