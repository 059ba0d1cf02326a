import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { chmod, copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import { tell } from "../kit/inside.ts";
import { leftovers, processes, sweep } from "../kit/leftovers.ts";
import { TestNode } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { type Container, type Image, World, withCredentials } from "../kit/world.ts";

const first = { username: "robot", password: "the first password" };
const second = { username: "robot", password: "the second password" };
const third = { username: "robot", password: "the third password" };
/**
 * The image's files, in the reverse order of their bytes in the layer, so that reading ahead in one does not bring the
 * next: each test reads one of which nothing is here yet.
 */
const files = { here: noise(2, 1), one: noise(4, 2), two: noise(4, 3), three: noise(4, 4) };
type File = keyof typeof files;

let world: World;
let scratch: string;
let image: Image;
/** The node that serves now: the world's first, or one that followed it. */
let node: TestNode;
const ids: string[] = [];

describe.each(["file", "loop"] as const)("containers of a partly fetched image (%s)", (transport) => {
  beforeAll(() => open(transport));
  afterAll(close);

  test("do not notice that their node was killed: every read is answered, output and exit code are right", async () => {
    const id = await runReader("one");
    await fault({ kind: "hang" });
    await tell(id, "go");
    await untilAsked();
    await node.crash();
    await fault();
    await startAgain();
    const ended = await reaches(id, "exited", "failed", "stopped");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(await node.ok(["logs", id])).toBe(sums("here", "here", "one"));
    expect(ended.events.map(({ kind }) => kind)).toContain("adopted");
    expect(await node.ok(["run", image.id])).toBe("hello from the image");
  });

  test("are ended by SIGTERM under load, while the registry hangs and many wait, and nothing is left", async () => {
    const cached = "while :; do cat /data/here > /dev/null; done &";
    const missing = "for at in $(seq 0 511 3584); do dd if=/data/two bs=1k skip=$at count=1 & done;";
    const script = `trap 'exit 0' TERM; ${cached} while [ ! -e /tmp/go ]; do sleep 0.05; done; ${missing} wait`;
    for (const _ of [1, 2, 3]) ids.push(await node.ok(["run", "-d", image.id, "--", "sh", "-c", script]));
    for (const id of ids.slice(-3)) await reaches(id, "running");
    await fault({ kind: "hang" });
    for (const id of ids.slice(-3)) await tell(id, "go");
    await untilAsked();
    const began = performance.now();
    expect(await node.stopProcess()).toBe(0);
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(await leftovers(dataDir(), ids)).toEqual([]);
  });
});

describe("containers of a node that is replaced", () => {
  beforeAll(() => open("auto"));
  afterAll(close);

  test("are ended and reported when the holder of their image is gone too", async () => {
    const id = await runReader("two");
    const holder = await holderPid();
    await node.crash();
    process.kill(holder, "SIGKILL");
    await startAgain();
    const ended = await reaches(id, "exited", "failed", "stopped");
    expect(ended.state).toBe("failed");
    expect(ended.reason).toContain("mount died");
    expect(await node.ok(["run", image.id])).toBe("hello from the image");
  });

  test("go on with another executable after SIGUSR2, and SIGTERM leaves nothing of them", async () => {
    const id = await runReader("one");
    // A restart of the worker's unit must not end what is to outlive it.
    expect(await readFile(`/proc/${await holderPid()}/cgroup`, "utf8")).toContain("/oci-node/.monitors");
    process.kill(node.pid, "SIGUSR2");
    expect(await node.ended()).toBe(0);
    const upgraded = join(scratch, "oci-node-next");
    await copyFile((await product())[0] ?? "", upgraded);
    await chmod(upgraded, 0o755);
    await startAgain([upgraded]);
    expect((await reaches(id, "running", "failed")).state).toBe("running");
    await tell(id, "go");
    expect((await reaches(id, "exited", "failed")).exitCode).toBe(7);
    const obedient = "trap 'exit 0' TERM; while :; do sleep 0.05; done";
    ids.push(await node.ok(["run", "-d", image.id, "--", "sh", "-c", obedient]));
    await reaches(ids.at(-1) ?? "", "running");
    expect(await node.stopProcess()).toBe(0);
    expect(await leftovers(dataDir(), ids)).toEqual([]);
  });
});

describe("credentials", () => {
  beforeAll(() => open("auto"));
  afterAll(close);

  test("that the registry refuses in the middle of a run are asked for anew, once, and the read goes on", async () => {
    const id = await runReader("one");
    await rotate(second);
    await tell(id, "go");
    const ended = await reaches(id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(await node.ok(["logs", id])).toBe(sums("here", "here", "one"));
    expect(refreshes()).toHaveLength(1);
  });

  test("that were rotated are asked for after a restart", async () => {
    const id = await runReader("two");
    await rotate(third);
    await node.crash();
    await startAgain();
    await tell(id, "go");
    const ended = await reaches(id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 7]);
    expect(await node.ok(["logs", id])).toBe(sums("here", "here", "two"));
  });

  test("that are refused anew fail the read, and the container says which registry refused", async () => {
    const id = await runReader("three");
    const before = refreshes().length;
    await world.registry.setAccounts([first]);
    await tell(id, "go");
    const ended = await reaches(id, "exited", "failed");
    expect([ended.state, ended.exitCode]).toEqual(["exited", 1]);
    expect(ended.reason).toContain(world.proxy.host);
    expect(refreshes().length - before).toBe(1);
    expect(node.log).not.toContain(third.password);
  });
});

const dataDir = () => join(scratch, "data");
const configPath = () => join(scratch, "config.toml");

/** A node that fetches nothing of itself, and an image of which it has no byte; through the proxy. */
async function open(transport: string): Promise<void> {
  scratch = await mkdtemp(join(tmpdir(), "oci-node-handover-"));
  await chmod(scratch, 0o755);
  await writeFile(
    configPath(),
    `[worker]\nmount_transport = "${transport}"\nbackground_fetch = false\ntraces = false\n`,
  );
  world = await World.start({
    registry: { auth: "htpasswd", accounts: [first] },
    node: { dataDir: dataDir(), args: ["--config", configPath()] },
  });
  node = world.node;
  const data = Object.entries(files).map(([name, content]) => ({ path: `data/${name}`, data: content }));
  data.reverse();
  const extra = [{ path: "data", type: "dir" as const }, ...data];
  image = await world.build("team/app:1", { image: await busyboxImage({ extra }), throughProxy: true });
}

async function close(): Promise<void> {
  await node.discard();
  await world.node.discard();
  await world.proxy.stop();
  await world.registry.stop();
  await sweep(scratch);
  await rm(scratch, { recursive: true, force: true });
}

async function startAgain(command?: readonly string[]): Promise<void> {
  node = await TestNode.start({
    dataDir: dataDir(),
    insecureRegistries: [...world.registry.insecureHosts, world.proxy.host],
    args: ["--config", configPath()],
    ...(command === undefined ? {} : { command }),
  });
}

/** Starts a container that has read one file, and reads that and another when it is told to. */
async function runReader(file: File): Promise<string> {
  const script = `md5sum /data/here; while [ ! -e /tmp/go ]; do sleep 0.05; done
    md5sum /data/here && md5sum /data/${file} || exit 1; exit 7`;
  const id = await node.ok(["run", "-d", image.id, "--", "sh", "-c", script]);
  ids.push(id);
  await reaches(id, "running");
  while ((await node.ok(["logs", id])) !== sums("here")) expect(id).not.toBe("");
  return id;
}

/** The registry takes another password, and the secret has it. */
async function rotate(account: typeof first): Promise<void> {
  await world.registry.setAccounts([account]);
  await node.ok(["secret", "update", String(image.secretName), ...withCredentials], {
    env: { USERNAME: account.username, PASSWORD: account.password },
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

/** The process that holds the node's mounts. */
async function holderPid(): Promise<number> {
  const [line = ""] = (await processes(dataDir())).filter((found) => found.includes("oci-node-holder"));
  return Number(line.split(" ")[1]);
}

/** How often the node went on with new credentials, or could not. */
function refreshes(): unknown[] {
  const told = ["going on with the image's credentials as they are now", "no new credentials for an image"];
  return node.records.filter(({ message }) => told.includes(String(message)));
}

/** The node's view of a container as soon as it is in one of the states. */
async function reaches(id: string, ...states: string[]): Promise<Container> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const container = await node.json<Container>(["inspect", id]);
    if (states.includes(container.state)) return container;
    if (Date.now() > deadline) throw new Error(`${id} is ${container.state}, not ${states.join(" or ")}`);
  }
}

/** What md5sum prints of the files. */
function sums(...names: readonly File[]): string {
  const sum = (name: File) => createHash("md5").update(files[name]).digest("hex");
  return names.map((name) => `${sum(name)}  /data/${name}`).join("\n");
}

/** Mebibytes that do not compress, the same each time. */
function noise(mebibytes: number, seed: number): Buffer {
  const blocks = Array.from({ length: mebibytes * 32_768 }, (_, index) =>
    createHash("sha256").update(`${seed} ${index}`).digest(),
  );
  return Buffer.concat(blocks);
}
