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
  // One that has yet to start is waited for.
  const next = await world.node.ok(["run", "-d", image.id, "sleep", "1000"]);
  expect(await world.node.ok(["exec", next, "echo", "there"])).toBe("there");
  await world.node.ok(["rm", "--force", next]);
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
  const script = "i=0; while :; do head -c 65536 /dev/urandom; i=$((i+1)); echo $i > /work/pieces; done";
  const pieces = () => world.node.ok(["exec", id, "cat", "/work/pieces"]);
  const child = await pipe(["exec", id, "sh", "-c", `trap 'exit 5' TERM; ${script}`], "ignore");
  const reader = child.stdout.getReader();
  await reader.read();
  let before = "";
  // Two looks are a tenth of a second apart, in which 100 MB could be written.
  for (let now = await pieces(); now !== before; now = await pieces()) before = now;
  expect(Number(before) * 65_536).toBeLessThan(8 * 1024 * 1024);
  child.kill("SIGTERM");
  while (!(await reader.read()).done);
  expect(await child.exited).toBe(5);
  const left = await pipe(["exec", id, "sleep", "777"], "ignore");
  const programs = () => world.node.ok(["exec", id, "ps"]);
  while (!(await programs()).includes("sleep 777"));
  left.kill("SIGKILL");
  while ((await programs()).includes("sleep 777"));
}, 60_000);

/** A command at a terminal of this test's, and what it shows there. */
class AtTerminal {
  readonly child: Bun.Subprocess;
  readonly terminal: Bun.Terminal;
  shown = "";
  #wake: () => void = () => undefined;

  private constructor(argv: readonly string[], env: Record<string, string>) {
    this.terminal = new Bun.Terminal({
      cols: 90,
      rows: 33,
      data: (_, data) => {
        this.shown += Buffer.from(data).toString();
        this.#wake();
      },
    });
    // Bun 1.4.5 gives a child its terminal, but does not make it the one that controls it.
    this.child = Bun.spawn(["setsid", "--ctty", "--wait", ...argv], { env, terminal: this.terminal });
  }

  static async start(args: readonly string[]): Promise<AtTerminal> {
    const { home } = world.node;
    const env = { ...cleanEnvironment, HOME: home, XDG_CONFIG_HOME: join(home, "config") };
    return new AtTerminal([...(await product()), ...args], env);
  }

  async shows(text: string): Promise<void> {
    const deadline = AbortSignal.timeout(20_000);
    while (!this.shown.includes(text)) {
      if (deadline.aborted)
        throw new Error(`${JSON.stringify(text)} was not shown, but ${JSON.stringify(this.shown)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        deadline.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  type(text: string): void {
    this.terminal.write(text);
  }
}

test("a shell at a terminal: its size and changes of it, Ctrl-C, the end of input, the exit code", async () => {
  const shell = await AtTerminal.start(["exec", "-it", "-e", "PS1=here> ", id, "sh"]);
  await shell.shows("here> ");
  shell.type("stty size\r");
  await shell.shows("33 90");
  shell.terminal.resize(70, 20);
  for (let look = 1; !shell.shown.includes("20 70"); look += 1) {
    shell.type(`stty size; echo look $((${look}))\r`);
    await shell.shows(`look ${look}\r\n`);
  }
  shell.type("sh -c \"echo g''o; exec sleep 1000\"\r");
  await shell.shows("\ngo\r\n");
  shell.type("\x03");
  await shell.shows("^C\r\n");
  shell.type("echo $((40+2)); exit 3\r");
  await shell.shows("42\r\n");
  expect(await shell.child.exited).toBe(3);
  // The terminal is as it was before.
  expect(shell.terminal.localFlags & 0o2).toBe(0o2);
  shell.terminal.close();
  const away = await world.node.cli(["exec", "-it", id, "sh"], { stdin: "exit\n" });
  expect(away).toMatchObject({
    code: 2,
    stderr: "oci-node: standard input is no terminal\n  Leave -t away.\n",
  });
}, 60_000);

test("run -it is at its container's terminal from its first byte on; another may attach to it", async () => {
  const script = 'echo first; while read -r x; do echo "<$x>"; [ "$x" = bye ] && exit 6; stty size; done';
  const here = await AtTerminal.start(["run", "-it", "--rm", "--name", "talk", image.id, "sh", "-c", script]);
  await here.shows("first\r\n");
  here.type("one\r");
  await here.shows("<one>\r\n33 90\r\n");
  const there = await AtTerminal.start(["attach", "talk"]);
  there.type("two\r");
  await here.shows("<two>");
  there.type("bye\r");
  expect(await Promise.all([here.child.exited, there.child.exited])).toEqual([6, 6]);
  for (const { terminal } of [here, there]) terminal.close();
  expect((await world.node.cli(["inspect", "talk"])).code).toBe(1);
  const piped = await world.node.cli(["run", "-i", "--rm", image.id, "sh", "-c", "cat; exit 3"], {
    stdin: "a\nb",
  });
  expect(piped).toMatchObject({ code: 3, stdout: "a\nb" });
  const none = await world.node.cli(["run", "--rm", image.id, "cat"], { stdin: "not read" });
  expect(none).toMatchObject({ code: 0, stdout: "" });
}, 60_000);

test("signals a container, and shows its last lines with their times", async () => {
  const script = "trap 'echo hup' HUP; for i in 1 2 3; do echo line $i; done; while :; do sleep 0.05; done";
  const loud = await world.node.ok(["run", "-d", image.id, "sh", "-c", script]);
  await world.reaches(loud, "running");
  const following = world.node.start(["logs", "-f", "-n", "1", "--timestamps", loud]);
  await following.waitFor(/^\S+Z line 3$/m);
  expect(await world.node.ok(["kill", "-s", "HUP", loud])).toBe(loud);
  await following.waitFor(/^\S+Z hup$/m);
  expect(await world.node.ok(["logs", "--tail", "2", loud])).toBe("line 3\nhup");
  expect(await world.node.ok(["logs", "--since", "2100-01-01", loud])).toBe("");
  await world.node.ok(["kill", loud]);
  expect(await following.child.exited).toBe(0);
  await world.reaches(loud, "exited");
  expect(await world.node.json(["inspect", loud])).toMatchObject({
    exitCode: 137,
    signal: "SIGKILL",
    oomKilled: false,
  });
  expect(await world.node.cli(["kill", loud])).toMatchObject({ code: 1 });
}, 60_000);

test("a program that fails is started again as often as was allowed, in the same container", async () => {
  const script =
    "echo x >> count; echo run; ip -4 -o addr show dev eth0 | grep -c inet; [ $(wc -l < count) = 3 ] && exit 0; exit 5";
  const args = [
    "run",
    "--restart",
    "on-failure:5",
    "--network",
    "private",
    "-p",
    "80",
    "--name",
    "again",
    image.id,
    "sh",
    "-c",
    script,
  ];
  // In the foreground all of them are seen.
  expect(await world.node.cli(args)).toMatchObject({ code: 0, stdout: "run\n1\n".repeat(3) });
  const after = await world.node.json<{
    restarts: number;
    state: string;
    exitCode: number;
    events: { kind: string; message: string }[];
  }>(["inspect", "again"]);
  expect(after).toMatchObject({ restarts: 2, state: "exited", exitCode: 0, ports: [{ containerPort: 80 }] });
  const told = after.events.filter(({ kind }) => kind === "restart").map(({ message }) => message);
  expect(told.length).toBe(4);
  expect(told[0]).toBe("its program ended (exit code 5); restarts in 100 ms");
  expect(told[1]).toBe("its program runs again; restarts by now: 1");
}, 60_000);
