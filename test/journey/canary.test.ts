import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tryRun } from "../../src/std/spawn.ts";
import { processes } from "../kit/leftovers.ts";
import { type Image, World } from "../kit/world.ts";

/** A password that is nowhere on this machine but where somebody put it. */
const password = `canary-${randomBytes(12).toString("hex")}`;
const username = "canary-user";
/** The ways in which it would show: as it is, in a basic header, in hexadecimal. */
const forms = [
  password,
  Buffer.from(password).toString("base64").slice(0, 30),
  Buffer.from(`${username}:${password}`).toString("base64").slice(0, 38),
  Buffer.from(password).toString("hex"),
];

let world: World;
let image: Image;
let running: string;
let outputs = "";

beforeAll(async () => {
  world = await World.start({
    registry: { auth: "bearer", accounts: [{ username, password }] },
    node: { args: ["--log-level", "debug"] },
  });
  image = await world.build("team/app:1");
  const collect = async (args: string[]): Promise<void> => {
    const { stdout, stderr } = await world.node.cli(args, { env: world.env });
    outputs += stdout + stderr;
  };
  await collect([
    "run",
    image.id,
    "--",
    "sh",
    "-c",
    "env; cat /proc/*/environ /proc/*/cmdline; find / -xdev | head -1000",
  ]);
  await collect(["image", "build", `${world.registry.host}/team/absent:1`, "--creds", "USERNAME,PASSWORD"]);
  await collect(["image", "build", image.reference, "--creds", "USERNAME"]);
  await collect(["secret", "ls", "--json"]);
  await collect(["image", "inspect", image.id, "--json"]);
  running = await world.node.ok(["run", "-d", image.id, "--", "sleep", "1000"]);
  await world.reaches(running, "running");
  await collect(["inspect", running, "--json"]);
});
afterAll(() => world.stop());

test("a password shows in no output of the command line and in no log", () => {
  for (const form of forms) {
    expect(outputs.includes(form)).toBe(false);
    expect(world.node.log.includes(form)).toBe(false);
  }
});

test("a password is in no file of the node: database, index, cache, bundles, logs", async () => {
  const patterns = join(world.node.home, "..", `${password.slice(7)}.patterns`);
  await writeFile(patterns, forms.join("\n"));
  try {
    const sealed = await tryRun(["grep", "-rlaF", "-f", patterns, world.node.home], { timeoutMs: 120_000 });
    expect(sealed.stdout).toBe("");
    expect(sealed.exitCode).toBe(1);
  } finally {
    await Bun.file(patterns).delete();
  }
});

test("a password is in no arguments and no environment of our processes and their children", async () => {
  const seen: string[] = [];
  const pids = new Set([
    String(world.node.pid),
    ...(await processes(world.node.dataDir)).map((line) => line.split(" ")[1] ?? ""),
  ]);
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    const argv = await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "");
    const environment = pids.has(pid) ? await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "") : "";
    if (forms.some((form) => argv.includes(form) || environment.includes(form))) seen.push(`${pid} ${argv}`);
  }
  expect(pids.size).toBeGreaterThan(3);
  expect(seen).toEqual([]);
  await world.node.ok(["stop", "--timeout", "1", running]);
});

test("a crash of the node would write no core, and others cannot look into it", async () => {
  const limits = await readFile(`/proc/${world.node.pid}/limits`, "utf8");
  expect(limits).toMatch(/Max core file size\s+0\s+0/);
});

test("the node does not start under variables that would make it print what it sends", async () => {
  const result = await world.node.cli(["secret", "ls"], { env: { BUN_CONFIG_VERBOSE_FETCH: "curl" } });
  expect(result.code).toBe(2);
});
