import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import type { endpointShape } from "../../src/cli/endpoint-shape.ts";
import { cleanEnvironment } from "../../src/std/spawn.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { httpImage } from "../kit/http-image.ts";
import { RunningLoad } from "../kit/load.ts";
import { product } from "../kit/product.ts";
import { World } from "../kit/world.ts";

const MiB = 1024 ** 2;

/** A program with a server of its own, a process for each request: what is asked of it goes to standard error, its log. */
const program = `
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/do <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
full() { dd if=/dev/zero of=$1 bs=1M count=500 2>&1 | grep -o 'No space left on device' && rm -f $1; }
case $QUERY_STRING in
  well) echo well;;
  flood) yes 'what a busy program has to say' | head -c 200000000 >&2; echo END-OF-FLOOD >&2; echo flooded;;
  disk) for place in /dev/shm/x /scratch/x /x; do full $place; done;;
  fork) bomb() { bomb & bomb & }; (exec >/dev/null 2>&1 </dev/null; bomb); echo forked;;
  endless) exec cat /dev/zero;;
  sleep) sleep 1; echo slept;;
esac
END
chmod +x /www/cgi-bin/do
[ -n "$DEAF" ] || trap 'exit 0' TERM
busybox httpd -f -p 8000 -h /www & wait
`;

let world: World;
let token: string;
let image: string;

beforeAll(async () => {
  world = await World.start();
  image = (await world.build("trouble/app:1", { image: await busyboxImage(), kept: true })).id;
  const other = (await world.build("trouble/other:1", { image: await httpImage(), kept: true })).id;
  token = JSON.parse(await Bun.file(join(world.node.home, "config/oci-node/context.json")).text()).token;
  await world.node.ok(["endpoint", "deploy", "other", other, "--min", "1"]);
  await deploy("--timeout", "20");
}, 120_000);
afterAll(() => world?.stop(), 60_000);

async function deploy(...more: readonly string[]): Promise<string> {
  const limits = [
    "--memory",
    "96Mi",
    "--cpu",
    "0.5",
    "--pids-limit",
    "60",
    "--storage-limit",
    "24Mi",
    "--tmpfs",
    "/scratch:size=8Mi",
  ];
  const flags = ["--min", "1", "--max", "1", ...limits, ...more];
  await world.node.ok(["endpoint", "deploy", "bad", image, ...flags, "--", "sh", "-c", program]);
  return await container();
}

async function container(): Promise<string> {
  const { containers } = await world.node.json<ReturnType<typeof endpointShape>>([
    "endpoint",
    "inspect",
    "bad",
  ]);
  return containers[0] ?? "";
}

async function call(what: string): Promise<{ status: number; told: string }> {
  const headers = { authorization: `Bearer ${token}` };
  const answer = await fetch(`${world.node.url}/endpoint/bad/cgi-bin/do?${what}`, { headers });
  return { status: answer.status, told: await answer.text() };
}

/** Another endpoint is called all the while: none of its requests fails, nor has most of them to wait. */
async function unharmed(action: () => Promise<void>): Promise<void> {
  const headers = [`Authorization: Bearer ${token}`];
  const load = await RunningLoad.start(`${world.node.url}/endpoint/other`, { connections: 1, headers });
  await action().catch(async (error: unknown) => {
    await load.end();
    throw error;
  });
  const { good, other, broken, p90 } = await load.end();
  expect([other, broken, good > 0]).toEqual([0, 0, true]);
  expect(p90).toBeLessThan(250_000);
}

/** Follows a container's standard error; nothing of it is kept. */
async function follow(id: string): Promise<{ readonly seesTheEnd: Promise<void> }> {
  const { home } = world.node;
  const env = { ...cleanEnvironment, HOME: home, XDG_CONFIG_HOME: join(home, "config") };
  const child = Bun.spawn([...(await product()), "logs", "-f", "-n", "9", id], { env, stderr: "pipe" });
  const read = async () => {
    let before = "";
    for await (const piece of child.stderr) {
      const text = Buffer.from(piece).toString("latin1");
      if (`${before}${text}`.includes("END-OF-FLOOD")) break;
      before = text.slice(-20);
    }
    child.kill();
  };
  return { seesTheEnd: read() };
}

/** What the node told of requests whose time was over. */
const cutOff = () =>
  world.node.records.filter(
    ({ code, reason }) => code === "timeout" && reason === "the request took longer than 3 s",
  );

const memoryOfNode = async () =>
  Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${world.node.pid}/status`, "utf8"))?.[1]) * 1024;

test("a program that floods its log or fills what it may write is told so, and whoever follows sees the end", async () => {
  const id = await container();
  const following = await follow(id);
  await unharmed(async () => {
    expect(await call("flood")).toEqual({ status: 200, told: "flooded\n" });
    await following.seesTheEnd;
    expect(await call("disk")).toEqual({ status: 200, told: "No space left on device\n".repeat(3) });
  });
  expect((await world.node.cli(["logs", "-n", "1", id])).stderr).toEndWith("END-OF-FLOOD\n");
  const logs = await Array.fromAsync(new Bun.Glob(`**/logs/${id}.log*`).scan(world.node.dataDir));
  const sizes = logs.map((path) => Bun.file(join(world.node.dataDir, path)).size);
  expect(Math.max(...sizes)).toBeLessThan(40 * MiB);
}, 60_000);

test("a program that forks without end, and a command in it that takes all memory, cost nobody else", async () => {
  const id = await container();
  await unharmed(async () => {
    expect(await call("fork")).toEqual({ status: 200, told: "forked\n" });
    const greedy = await world.node.cli(["exec", id, "busybox", "tail", "-c", "500m", "/dev/zero"]);
    expect([greedy.code, greedy.stderr]).toEqual([
      137,
      `oci-node: the program was ended: container ${id} had used all the memory that it may have\n`,
    ]);
    expect(await world.inspect(id)).toMatchObject({ state: "running", oomKilled: false });
    await world.node.ok(["stop", "--timeout", "0", id]);
  });
  expect(await world.inspect(id)).toMatchObject({ state: "stopped" });
  expect(await call("well")).toEqual({ status: 200, told: "well\n" });
}, 60_000);

test("who does not read an answer that has no end is cut off in time, and keeps no memory of the node's", async () => {
  await deploy("--timeout", "3");
  await call("well");
  const before = await memoryOfNode();
  const { port } = new URL(world.node.url);
  await unharmed(async () => {
    const clients = Array.from({ length: 8 }, () => {
      const socket = connect(Number(port), "127.0.0.1").pause();
      socket.write(
        `GET /endpoint/bad/cgi-bin/do?endless HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n\r\n`,
      );
      return socket.on("error", () => undefined);
    });
    expect(await call("well")).toEqual({ status: 200, told: "well\n" });
    while (cutOff().length < clients.length) await Bun.sleep(20);
    for (const client of clients) client.destroy();
    expect((await memoryOfNode()) - before).toBeLessThan(128 * MiB);
  });
}, 60_000);

test("a program that is deaf to its stop signal has its requests' ends, and no more than its time", async () => {
  await deploy("--stop-timeout", "1", "--env", "DEAF=1");
  const before = await container();
  const begun = call("sleep");
  await deploy("--stop-timeout", "1");
  expect(await begun).toEqual({ status: 200, told: "slept\n" });
  expect(await world.reaches(before, "stopped")).toMatchObject({
    exitCode: 137,
    signal: "SIGKILL",
    oomKilled: false,
  });
}, 60_000);
