import { afterAll, beforeAll, expect, test } from "bun:test";
import { leftovers } from "../kit/leftovers.ts";
import { type Image, World } from "../kit/world.ts";

let world: World;
let image: Image;

beforeAll(async () => {
  world = await World.start();
  image = await world.build("team/app:1");
});
afterAll(() =>
  world.node
    .discard()
    .then(() => world.proxy.stop())
    .then(() => world.registry.stop()),
);

test("Ctrl-C of a run in the foreground stops its container by its stop signal", async () => {
  const script = 'trap "echo caught; exit 5" TERM; echo ready; while :; do sleep 0.05; done';
  const program = world.node.start(["run", image.id, "--", "sh", "-c", script]);
  await program.waitFor(/ready\n/);
  expect(await program.stop("SIGINT", 20_000)).toBe(5);
  expect(program.output).toContain("caught");
  expect((await world.lastContainer()).state).toBe("stopped");
});

test("a second Ctrl-C kills a container that ignores the first", async () => {
  const script = 'trap "" TERM; echo ready; while :; do sleep 0.05; done';
  const program = world.node.start(["run", image.id, "--", "sh", "-c", script]);
  await program.waitFor(/ready\n/);
  const started = performance.now();
  program.child.kill("SIGINT");
  await world.node.waitForLog(/./);
  const { id } = await world.lastContainer();
  await world.reaches(id, "stopping");
  expect(await program.stop("SIGINT", 20_000)).not.toBe(0);
  expect(performance.now() - started).toBeLessThan(9_000);
  expect((await world.lastContainer()).state).toBe("stopped");
});

test("a container outlives the terminal of a detached run, and Ctrl-C of the node ends everything", async () => {
  const ids = await Promise.all(
    [1, 2].map(() => world.node.ok(["run", "-d", image.id, "--", "sleep", "1000"])),
  );
  for (const id of ids) await world.reaches(id, "running");
  expect(await world.node.stopProcess()).toBe(0);
  expect(await leftovers(world.node.dataDir, ids)).toEqual([]);
});
