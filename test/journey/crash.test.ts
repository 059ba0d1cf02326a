import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { leftovers, mounts, sweep } from "../kit/leftovers.ts";
import { TestNode } from "../kit/node.ts";
import { type Container, World } from "../kit/world.ts";

let world: World;
let dataDir: string;
let next: TestNode | undefined;

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "oci-node-crash-"));
  await chmod(dataDir, 0o755);
  world = await World.start({ node: { dataDir } });
});
afterEach(async () => {
  await next?.discard();
  next = undefined;
  await world.node.discard();
  await world.proxy.stop();
  await world.registry.stop();
  await sweep(dataDir);
  await rm(dataDir, { recursive: true, force: true });
});

const startAgain = async (): Promise<TestNode> => {
  next = await TestNode.start({
    dataDir,
    insecureRegistries: [...world.registry.insecureHosts, world.proxy.host],
  });
  return next;
};

/** The node's view of a container as soon as it is in one of the states. */
async function reaches(node: TestNode, id: string, ...states: string[]): Promise<Container> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const container = await node.json<Container>(["inspect", id]);
    if (states.includes(container.state)) return container;
    if (Date.now() > deadline) throw new Error(`${id} is ${container.state}, not ${states.join(" or ")}`);
  }
}

/** Asks until the node has told that it took the container over, which is running. */
async function isAdopted(node: TestNode, id: string): Promise<void> {
  for (;;) {
    const container = await node.json<Container>(["inspect", id]);
    expect(container.state).toBe("running");
    if (container.events.some(({ kind }) => kind === "adopted")) return;
  }
}

test("a container whose image is all here survives the crash of its node, with its output and exit code", async () => {
  const image = await world.build("team/app:1");
  const script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo after; exit 7";
  const id = await world.node.ok(["run", "-d", "--eager", image.id, "--", "sh", "-c", script]);
  await world.reaches(id, "running");
  await world.node.crash();
  const node = await startAgain();
  await isAdopted(node, id);
  await release(id);
  const ended = await reaches(node, id, "exited", "failed", "stopped");
  expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
  expect(await node.ok(["logs", id])).toBe("before\nafter");
  expect(await node.ok(["run", image.id])).toBe("hello from the image");
});

test("a container that ended while its node was away is reported with its exit code", async () => {
  const image = await world.build("team/app:1");
  const script = "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo done; exit 9";
  const id = await world.node.ok(["run", "-d", "--eager", image.id, "--", "sh", "-c", script]);
  await world.reaches(id, "running");
  await world.node.crash();
  const pid = await release(id);
  while (await isAlive(pid)) await Bun.sleep(20);
  const node = await startAgain();
  const ended = await reaches(node, id, "exited", "failed", "stopped");
  expect([ended.state, ended.exitCode]).toEqual(["exited", 9]);
  expect(await node.ok(["logs", id])).toBe("done");
});

test("after a crash in the middle of everything no state is wrong and no mount is stale", async () => {
  const image = await world.build("team/app:1", { throughProxy: true });
  const first = await world.node.ok(["run", "-d", image.id, "--", "sleep", "1000"]);
  await world.reaches(first, "running");
  const later = await Promise.all(
    [1, 2, 3].map(() => world.node.ok(["run", "-d", image.id, "--", "sleep", "1000"])),
  );
  await world.node.crash();
  const node = await startAgain();
  for (const id of [first, ...later]) {
    const container = await reaches(node, id, "running", "failed", "exited");
    if (container.state === "failed") expect(container.reason).not.toBeNull();
    await node.ok(["stop", "--timeout", "1", id]).catch(() => "");
    await reaches(node, id, "failed", "exited", "stopped");
  }
  expect(await node.ok(["run", image.id])).toBe("hello from the image");
  expect(await node.json<Container[]>(["ps"])).toEqual([]);
  expect(await node.stopProcess()).toBe(0);
  expect(await mounts(dataDir)).toEqual([]);
  expect(await leftovers(dataDir, [first, ...later])).toEqual([]);
});

test("a crash in the middle of a build leaves nothing that looks whole", async () => {
  const reference = await world.push("team/app:1", { throughProxy: true });
  await world.proxy.setFaults({ match: "^GET .*/blobs/", action: { kind: "hang" } });
  await world.proxy.resetStats();
  const build = world.node.start(["image", "build", reference, "--creds", "USERNAME,PASSWORD"], world.env);
  while (!(await world.proxy.stats()).log.some((line) => line.includes("/blobs/")))
    expect(build.child.exitCode).toBeNull();
  await world.node.crash();
  expect(await build.child.exited).not.toBe(0);
  const node = await startAgain();
  await world.proxy.setFaults();
  expect(await node.json<object[]>(["image", "ls"])).toEqual([]);
  const image = await node.ok(["image", "build", reference, "--creds", "USERNAME,PASSWORD"], {
    env: world.env,
  });
  expect(await node.ok(["run", image])).toBe("hello from the image");
});

/** Lets a container that waits for /tmp/go end, from outside of the node; gives its process. */
async function release(id: string): Promise<number> {
  for (const pid of [...new Bun.Glob("*").scanSync({ cwd: "/proc", onlyFiles: false })].filter((name) =>
    /^\d+$/.test(name),
  )) {
    const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
    const argv = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!cgroup.includes(id) || !argv.includes("/tmp/go")) continue;
    await Bun.write(`/proc/${pid}/root/tmp/go`, "");
    return Number(pid);
  }
  throw new Error(`no process of container ${id} is there`);
}

async function isAlive(pid: number): Promise<boolean> {
  return (
    (await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "Z")).includes(") Z") === false &&
    (await Bun.file(`/proc/${pid}/stat`).exists())
  );
}
