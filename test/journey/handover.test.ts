import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmod, copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import { leftovers, mounts, sweep } from "../kit/leftovers.ts";
import { TestNode } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { type Container, type Image, World, withCredentials } from "../kit/world.ts";

const first = { username: "robot", password: "the first password" };
const second = { username: "robot", password: "the second password" };
const here = noise(4);
const there = noise(6);
let world: World;
let scratch: string;
let next: TestNode | undefined;

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "oci-node-handover-"));
  await chmod(scratch, 0o755);
});
afterEach(async () => {
  await next?.discard();
  next = undefined;
  await world.node.discard();
  await world.proxy.stop();
  await world.registry.stop();
  await sweep(scratch);
  await rm(scratch, { recursive: true, force: true });
});

describe.each(["file", "loop"] as const)("a container of a partly fetched image (%s)", (transport) => {
  test("does not notice that its node was killed: every read is answered, output and exit code are right", async () => {
    const image = await start(transport);
    const id = await runReader(image);
    await fault({ kind: "hang" });
    await tell(id, "go");
    await untilAsked();
    await world.node.crash();
    await fault();
    const node = await startAgain();
    const ended = await reaches(node, id, "exited", "failed", "stopped");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(await node.ok(["logs", id])).toBe(`${sums(here)}\n${sums(here, there)}`);
    expect(ended.events.map(({ kind }) => kind)).toContain("adopted");
    expect(await node.ok(["run", image.id])).toBe("hello from the image");
    expect(await node.stopProcess()).toBe(0);
    expect(await mounts(dataDir())).toEqual([]);
    expect(await leftovers(dataDir(), [id])).toEqual([]);
  });
});

test.each(["file", "loop"])(
  "SIGTERM ends a node under load (%s), while the registry hangs and many wait, and leaves nothing",
  async (transport) => {
    const image = await start(transport);
    const cached = "while :; do cat /data/here > /dev/null; done &";
    const missing = "for at in $(seq 0 511 5632); do dd if=/data/there bs=1k skip=$at count=1 & done;";
    const script = `trap 'exit 0' TERM; cat /data/here > /dev/null; ${cached} echo begun; while [ ! -e /tmp/go ]; do sleep 0.05; done; ${missing} wait`;
    const ids = await Promise.all(
      [1, 2, 3].map(() => world.node.ok(["run", "-d", image.id, "--", "sh", "-c", script])),
    );
    for (const id of ids) await world.reaches(id, "running");
    for (const id of ids) while ((await world.node.ok(["logs", id])) !== "begun") expect(id).not.toBe("");
    await fault({ kind: "hang" });
    for (const id of ids) await tell(id, "go");
    await untilAsked();
    const began = performance.now();
    expect(await world.node.stopProcess()).toBe(0);
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(await leftovers(dataDir(), ids)).toEqual([]);
  },
);

test("SIGUSR2 hands containers over to another executable, and SIGTERM leaves nothing of them", async () => {
  const image = await start("auto");
  const id = await runReader(image);
  process.kill(world.node.pid, "SIGUSR2");
  expect(await world.node.ended()).toBe(0);
  const upgraded = join(scratch, "oci-node-next");
  await copyFile((await product())[0] ?? "", upgraded);
  await chmod(upgraded, 0o755);
  const node = await startAgain([upgraded]);
  const adopted = await reaches(node, id, "running", "failed");
  expect(adopted.state).toBe("running");
  await tell(id, "go");
  expect((await reaches(node, id, "exited", "failed")).exitCode).toBe(7);
  const obedient = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
  const other = await node.ok(["run", "-d", image.id, "--", "sh", "-c", obedient]);
  await reaches(node, other, "running");
  expect(await node.stopProcess()).toBe(0);
  expect(await leftovers(dataDir(), [id, other])).toEqual([]);
});

describe("credentials", () => {
  test("that were rotated meanwhile are asked for after a restart", async () => {
    const image = await start("auto");
    const id = await runReader(image);
    await rotate(image);
    await world.node.crash();
    const node = await startAgain();
    await tell(id, "go");
    const ended = await reaches(node, id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(await node.ok(["logs", id])).toBe(`${sums(here)}\n${sums(here, there)}`);
  });

  test("that the registry refuses in the middle of a run are asked for anew, once, and the read goes on", async () => {
    const image = await start("auto");
    const id = await runReader(image);
    await rotate(image);
    await tell(id, "go");
    const ended = await reaches(world.node, id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(await world.node.ok(["logs", id])).toBe(`${sums(here)}\n${sums(here, there)}`);
    expect(refreshes()).toHaveLength(1);
  });

  test("that are refused anew fail the read, and the container says which registry refused", async () => {
    const image = await start("auto");
    const id = await runReader(image);
    await world.registry.setAccounts([second]);
    await tell(id, "go");
    const ended = await reaches(world.node, id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 1]);
    expect(ended.reason).toContain(world.proxy.host);
    expect(refreshes()).toHaveLength(1);
    expect(world.node.log).not.toContain(first.password);
  });
});

const dataDir = () => join(scratch, "data");

/** A node that fetches nothing of itself, and an image of which it has no byte; through the proxy. */
async function start(transport: string): Promise<Image> {
  const config = join(scratch, "config.toml");
  await writeFile(
    config,
    `[worker]\nmount_transport = "${transport}"\nbackground_fetch = false\ntraces = false\n`,
  );
  world = await World.start({
    registry: { auth: "htpasswd", accounts: [first] },
    node: { dataDir: dataDir(), args: ["--config", config] },
  });
  const extra = [
    { path: "data", type: "dir" as const },
    { path: "data/here", data: here },
    { path: "data/there", data: there },
  ];
  return await world.build("team/app:1", { image: await busyboxImage({ extra }), throughProxy: true });
}

async function startAgain(command?: readonly string[]): Promise<TestNode> {
  next = await TestNode.start({
    dataDir: dataDir(),
    insecureRegistries: [...world.registry.insecureHosts, world.proxy.host],
    args: ["--config", join(scratch, "config.toml")],
    ...(command === undefined ? {} : { command }),
  });
  return next;
}

/** Starts a container that has read one file, and reads the other when it is told to. */
async function runReader(image: Image): Promise<string> {
  const script = `md5sum /data/here; while [ ! -e /tmp/go ]; do sleep 0.05; done
    md5sum /data/here && md5sum /data/there || exit 1; exit 7`;
  const id = await world.node.ok(["run", "-d", image.id, "--", "sh", "-c", script]);
  await world.reaches(id, "running");
  while ((await world.node.ok(["logs", id])) !== sums(here)) expect(id).not.toBe("");
  return id;
}

/** The registry takes another password, and the secret has it. */
async function rotate(image: Image): Promise<void> {
  await world.registry.setAccounts([second]);
  await world.node.ok(["secret", "update", String(image.secretName), ...withCredentials], {
    env: { USERNAME: second.username, PASSWORD: second.password },
  });
}

async function fault(action?: { readonly kind: "hang" }): Promise<void> {
  await world.proxy.resetStats();
  await world.proxy.setFaults(...(action === undefined ? [] : [{ match: "^GET .*/blobs/", action }]));
}

async function untilAsked(): Promise<void> {
  while (!(await world.proxy.stats()).log.some((line) => line.includes("/blobs/")))
    expect(world.proxy.host).not.toBe("");
}

/** How often the node went on with new credentials, or could not. */
function refreshes(): unknown[] {
  const told = ["going on with the image's credentials as they are now", "no new credentials for an image"];
  return world.node.records.filter(({ message }) => told.includes(String(message)));
}

/** The node's view of a container as soon as it is in one of the states. */
async function reaches(node: TestNode, id: string, ...states: string[]): Promise<Container> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const container = await node.json<Container>(["inspect", id]);
    if (states.includes(container.state)) return container;
    if (Date.now() > deadline) throw new Error(`${id} is ${container.state}, not ${states.join(" or ")}`);
  }
}

/** Makes a file in a container's /tmp, from outside of the node. */
async function tell(id: string, word: string): Promise<void> {
  for (const pid of new Bun.Glob("*").scanSync({ cwd: "/proc", onlyFiles: false })) {
    if (!/^\d+$/.test(pid)) continue;
    const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
    const argv = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (!cgroup.includes(id) || !argv.includes("/tmp/go")) continue;
    await Bun.write(`/proc/${pid}/root/tmp/${word}`, "");
    return;
  }
  throw new Error(`no process of container ${id} is there`);
}

/** What md5sum prints of the files. */
function sums(...files: readonly Buffer[]): string {
  return files
    .map(
      (file) => `${createHash("md5").update(file).digest("hex")}  /data/${file === here ? "here" : "there"}`,
    )
    .join("\n");
}

/** Mebibytes that do not compress, the same each time. */
function noise(mebibytes: number): Buffer {
  const blocks = Array.from({ length: mebibytes * 32_768 }, (_, index) =>
    createHash("sha256").update(`${mebibytes} ${index}`).digest(),
  );
  return Buffer.concat(blocks);
}
