import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { cleanEnvironment } from "../../src/std/spawn.ts";
import { product } from "../kit/product.ts";
import { type Image, World } from "../kit/world.ts";

let world: World;
let image: Image;
let id: string;

beforeAll(async () => {
  world = await World.start();
  image = await world.build("team/app:1");
  id = await world.node.ok(["run", "-d", image.id, "--", "sleep", "1000"]);
  await world.reaches(id, "running");
});
afterAll(() =>
  world.node
    .discard()
    .then(() => world.proxy.stop())
    .then(() => world.registry.stop()),
);

test("a program in a container: its words, variables, directory, output, exit code", async () => {
  const script = "echo $A $FROM_IMAGE; pwd; echo bad >&2; exit 7";
  const ran = await world.node.cli(["exec", "-e", "A=b", "-w", "/bin", id, "sh", "-c", script]);
  expect(ran).toMatchObject({ code: 7, stdout: "b yes\n/bin\n", stderr: "bad\n" });
  expect(await world.node.cli(["exec", id, "nope"])).toMatchObject({ code: 127 });
  expect(await world.node.cli(["exec", id, "/etc/motd"])).toMatchObject({ code: 126 });
  expect(await world.node.cli(["exec", "c-0000000000000000", "true"])).toMatchObject({ code: 125 });
  expect(await world.node.cli(["exec", "-i", id, "cat"], { stdin: "hello" })).toMatchObject({
    code: 0,
    stdout: "hello",
  });
}, 30_000);

/** Starts a command whose standard input and output are this test's. */
async function pipe(args: readonly string[], stdin: "ignore" | Blob) {
  const { home } = world.node;
  const env = { ...cleanEnvironment, HOME: home, XDG_CONFIG_HOME: join(home, "config") };
  return Bun.spawn([...(await product()), ...args], { env, stdin, stdout: "pipe", stderr: "inherit" });
}

test("50 MB pass through standard input and output unchanged", async () => {
  const piece = crypto.getRandomValues(new Uint8Array(64 * 1024));
  const all = Buffer.concat(Array.from({ length: 800 }, (_, at) => [new Uint8Array([at]), piece]).flat());
  const child = await pipe(["exec", "-i", id, "cat"], new Blob([all]));
  const got = await new Response(child.stdout).bytes();
  expect(await child.exited).toBe(0);
  expect(got.length).toBe(all.length);
  expect(Bun.SHA256.hash(got)).toEqual(Bun.SHA256.hash(all));
}, 60_000);

test("a program waits for a slow reader, gets the signals of its command, and ends with it", async () => {
  const script = "i=0; while :; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > /work/pieces; done";
  const pieces = () => world.node.ok(["exec", id, "cat", "/work/pieces"]);
  const child = await pipe(["exec", id, "sh", "-c", `trap 'exit 5' TERM; ${script}`], "ignore");
  const reader = child.stdout.getReader();
  await reader.read();
  let before = "";
  // Two looks are a tenth of a second apart, in which 100 MB could be written.
  for (let now = await pieces(); now !== before; now = await pieces()) before = now;
  expect(Number(before) * 65_536).toBeLessThan(16 * 1024 * 1024);
  child.kill("SIGTERM");
  while (!(await reader.read()).done);
  expect(await child.exited).toBe(5);
  const left = await pipe(["exec", id, "sleep", "777"], "ignore");
  const programs = () => world.node.ok(["exec", id, "ps"]);
  while (!(await programs()).includes("sleep 777"));
  left.kill("SIGKILL");
  while ((await programs()).includes("sleep 777"));
}, 60_000);
