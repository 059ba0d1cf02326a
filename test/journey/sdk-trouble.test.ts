import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pythonImage } from "../kit/python-image.ts";
import { PythonUser } from "../kit/python-user.ts";
import { World } from "../kit/world.ts";

const app = (reference: string) => `
import ctypes, os, sys, time
from oci_node import Image, endpoint
image = Image("${reference}", ["USERNAME", "PASSWORD"])

def trouble(what="well"):
    if what == "forever":
        while True: time.sleep(1)
    if what == "exit": sys.exit(3)
    if what == "crash": ctypes.string_at(0)
    if what == "print":
        line = b"x" * 65535 + b"\\n"
        for _ in range(1600): os.write(1, line)
    if what == "fork":
        while True:
            if os.fork() == 0: time.sleep(1000)
    if what == "disk":
        with open("/var/full", "wb", buffering=0) as file:
            try:
                while True: file.write(bytes(1 << 20))
            except OSError as error: return error.strerror
            finally: os.unlink("/var/full")
    if what == "memory": return len(os.urandom(1) * (1 << 30))
    return what

def options(timeout):
    return dict(image=image, memory="128Mi", cpu=0.5, timeout=timeout, max_containers=1)
slow = endpoint(**options(60), name="slow")(trouble)
quick = endpoint(**options(1), name="quick")(trouble)
`;

let dir: string;
let world: World;
let user: PythonUser;
let token: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-trouble-"));
  const config = join(dir, "config.toml");
  await writeFile(config, '[worker]\nstorage_limit = "32Mi"\n', { mode: 0o600 });
  world = await World.start({ node: { args: ["--config", config] } });
  user = await PythonUser.start(world.node);
  token = await user.token();
  await user.write("app.py", app(await world.push("team/app:1", { image: await pythonImage() })));
  for (const name of ["slow", "quick"]) {
    const { code, stderr } = await user.command(["deploy", `app.py:${name}`], world.env);
    if (code !== 0) throw new Error(stderr);
  }
}, 240_000);
afterAll(async () => {
  await user?.stop();
  await world?.stop();
  await rm(dir, { recursive: true, force: true });
}, 60_000);

async function call(name: string, what: string): Promise<{ status: number; told: string }> {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const body = JSON.stringify({ what });
  const answer = await fetch(`${world.node.url}/endpoint/${name}`, { method: "POST", headers, body });
  return { status: answer.status, told: await answer.text() };
}

/** The next container answers, once there is one; until then callers are told that the one before broke. */
async function recovers(name: string): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const { status, told } = await call(name, "well");
    if (status === 200) return expect(told).toBe('"well"');
    // 403: of whoever else is asked at the address of a container that just went.
    if (![403, 502, 504].includes(status) || Date.now() > deadline) throw new Error(`${status}: ${told}`);
  }
}

/** The container that an endpoint has now. */
async function containerOf(name: string): Promise<string> {
  const { containers } = await world.node.json<{ containers: string[] }>(["endpoint", "inspect", name]);
  return containers[0] ?? "";
}

test("a handler that never returns is told to its caller, and where it was in its container's log", async () => {
  const id = await containerOf("quick");
  expect(await call("quick", "forever")).toMatchObject({ status: 504 });
  expect(await world.reaches(id, "exited", "failed")).toMatchObject({ exitCode: 124 });
  expect((await world.node.cli(["logs", id])).stderr).toMatch(
    /nobody waits any more[\s\S]*line \d+, in trouble/,
  );
  await recovers("quick");
});

test("a handler that exits, crashes or takes too much memory costs its own container", async () => {
  for (const [what, end] of [
    ["exit", { exitCode: 3 }],
    ["crash", { exitCode: 139, signal: "SIGSEGV" }],
    ["memory", { exitCode: 137, oomKilled: true }],
  ] as const) {
    const id = await containerOf("slow");
    const { status, told } = await call("slow", what);
    expect([what, status, told]).toEqual([what, 502, expect.stringContaining("did not answer")]);
    expect(await world.reaches(id, "exited", "failed")).toMatchObject(end);
    await recovers("slow");
  }
});

test("a handler that prints a hundred megabytes, or fills the disk that it may have, goes on", async () => {
  expect(await call("slow", "print")).toEqual({ status: 200, told: '"print"' });
  expect(await call("slow", "disk")).toEqual({ status: 200, told: '"No space left on device"' });
  await recovers("slow");
});

test("a handler that forks without end is ended, and all that it made with it", async () => {
  // Its time is over, or its memory, whichever comes first.
  expect([502, 504]).toContain((await call("quick", "fork")).status);
  await recovers("quick");
});
