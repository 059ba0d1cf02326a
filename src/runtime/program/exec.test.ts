import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { RunningContainer } from "../container.ts";
import { statePaths } from "../layout.ts";
import { imageConfig, TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import type { ExecEnd, ExecProcess } from "./exec.ts";
import type { ExecRequest } from "./exec-process.ts";

let host: TestHost;
let runtime: Runtime;
let container: RunningContainer;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
  const imageConfigOf = imageConfig({ User: "ann", WorkingDir: "/home/ann", Env: ["PATH=/bin", "IMAGE=1"] });
  const spec = host.spec(["sleep", "1000"], { imageConfig: imageConfigOf, env: { ASKED: "2" } });
  container = await runtime.start(spec, new AbortController().signal);
});

afterAll(async () => {
  await container.cleanup();
  await container.removeLog();
  const left = await host.leftovers();
  await host.close();
  expect(left).toEqual([]);
});

function request(command: readonly string[], more: Partial<ExecRequest> = {}): ExecRequest {
  const size = { rows: 24, columns: 80 };
  return { command, env: {}, workingDirectory: "", user: "", terminal: false, size, ...more };
}

const sh = (script: string, more: Partial<ExecRequest> = {}) => request(["sh", "-c", script], more);

interface Outcome extends ExecEnd {
  readonly stdout: string;
  readonly stderr: string;
}

/** Reads to the end. @param onText called with all of standard output so far */
async function outcome(exec: ExecProcess, onText: (text: string) => void = () => {}): Promise<Outcome> {
  const text = { stdout: "", stderr: "" };
  for await (const { stream, data } of exec.output) {
    text[stream] += Buffer.from(data).toString();
    onText(text.stdout);
  }
  return { ...(await exec.ended), ...text };
}

/** Runs a program to its end, with nothing on its standard input. */
async function run(wanted: ExecRequest): Promise<Outcome> {
  const exec = await container.exec(wanted);
  exec.closeInput();
  return await outcome(exec);
}

const failure = (wanted: ExecRequest) => container.exec(wanted).catch((error: unknown) => error);

test("runs a program as the container's own user, with its environment and limits", async () => {
  const script = "id; pwd; env | sort; echo bad >&2; grep -E 'Seccomp:|CapBnd|NoNewPrivs' /proc/self/status";
  const mine = await run(sh(script));
  expect(mine).toMatchObject({ exitCode: 0, stderr: "bad\n" });
  expect(mine.stdout).toStartWith(
    "uid=1001(ann) gid=1002(ann) groups=20(wheel),29(audio),1002(ann)\n/home/ann\nASKED=2\n",
  );
  expect(mine.stdout).toContain("HOME=/home/ann\n");
  expect(mine.stdout).toContain("IMAGE=1\n");
  const own = await readFile(`/proc/${container.pid}/status`, "utf8");
  const rights = own.split("\n").filter((line) => /^(Seccomp:|CapBnd|NoNewPrivs)/.test(line));
  expect(mine.stdout).toEndWith(`${rights.sort().join("\n")}\n`);
});

test("takes another user by name, a directory and variables in place of the container's", async () => {
  const env = { ASKED: "3", MORE: "a b" };
  const other = await run(
    sh("id -u; pwd; echo $HOME $ASKED $IMAGE $MORE", { user: "root", workingDirectory: "/tmp", env }),
  );
  expect(other).toMatchObject({ exitCode: 0, stdout: "0\n/tmp\n/root 3 1 a b\n" });
  const held = await run(sh("grep CapEff /proc/self/status", { user: "0:wheel" }));
  expect(held.stdout).toMatch(/a80425fb$/m);
});

test("tells the exit code, and the signal that ended the program", async () => {
  expect(await run(sh("exit 255"))).toMatchObject({ exitCode: 255 });
  expect(await run(sh("kill -9 $$"))).toMatchObject({ exitCode: 137, signal: "SIGKILL" });
  const waiting = await container.exec(
    sh("trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.02; done"),
  );
  const usage = await container.usage();
  expect(usage.pids).toBeGreaterThan(1);
  const seen = await outcome(waiting, (text) => {
    if (text === "ready\n") waiting.signal(10);
  });
  expect(seen).toMatchObject({ exitCode: 3, stdout: "ready\ngot it\n" });
  waiting.signal(10);
});

test("says why a program cannot be started", async () => {
  const cases: readonly [ExecRequest, object][] = [
    [
      request(["nope"]),
      { code: "command_not_found", message: '"nope" was not found on the $PATH of the image' },
    ],
    [request(["/etc/passwd"]), { code: "permission" }],
    [request(["/nope"]), { code: "command_not_found" }],
    [sh("true", { workingDirectory: "/nope" }), { code: "permission" }],
    [sh("true", { user: "bob" }), { code: "bad_user" }],
    [request([]), { code: "bad_config", message: "no program was named" }],
    [sh("true", { workingDirectory: "tmp" }), { code: "bad_config" }],
    [sh("true", { env: { "A=B": "" } }), { code: "bad_config" }],
    [request(["a\0b"]), { code: "bad_config" }],
  ];
  for (const [wanted, expected] of cases) expect(await failure(wanted)).toMatchObject(expected);
});

test("passes 50 MB through unchanged, and holds a writer up whose reader is slow", async () => {
  const exec = await container.exec(request(["cat"]));
  const sent = new Bun.CryptoHasher("sha256");
  const got = new Bun.CryptoHasher("sha256");
  const piece = crypto.getRandomValues(new Uint8Array(64 * 1024));
  const pieces = 800;
  let written = 0;
  const writing = (async () => {
    for (; written < pieces; written += 1) {
      piece[0] = written;
      sent.update(piece);
      await exec.write(piece.slice());
    }
    exec.closeInput();
  })();
  let bytes = 0;
  for await (const { data } of exec.output) {
    // Nothing is read until the way through is full.
    if (bytes === 0) for (let last = -1; last !== written; await Bun.sleep(50)) last = written;
    if (bytes === 0) expect(written * piece.length).toBeLessThan(4 * 1024 * 1024);
    bytes += data.length;
    got.update(data);
  }
  await writing;
  expect(bytes).toBe(pieces * piece.length);
  expect(got.digest("hex")).toBe(sent.digest("hex"));
  expect(await exec.ended).toEqual({ exitCode: 0, oomKilled: false });
});

test("gives a program a terminal that can be resized, and interrupts it as a terminal does", async () => {
  const script =
    "tty; stty size; echo $TERM; trap 'stty size' WINCH; trap 'echo broken' INT; echo go; until [ \"$x\" = word ]; do read -r x; done; echo \"<$x>\"; cat; exit 4";
  const exec = await container.exec(sh(script, { terminal: true, size: { rows: 30, columns: 100 } }));
  let step = 0;
  const seen = await outcome(exec, (text) => {
    if (step === 0 && text.includes("go\r\n")) {
      step = 1;
      exec.resize({ rows: 40, columns: 120 });
    } else if (step === 1 && text.includes("40 120")) {
      step = 2;
      void exec.write(Buffer.from("\x03"));
    } else if (step === 2 && text.includes("broken")) {
      step = 3;
      void exec.write(Buffer.from("word\r"));
    } else if (step === 3 && text.includes("<word>")) {
      step = 4;
      exec.closeInput();
    }
  });
  expect(seen.stdout).toStartWith("/dev/pts/0\r\n30 100\r\nxterm\r\ngo\r\n");
  expect(seen).toMatchObject({ exitCode: 4, stderr: "" });
  expect(step).toBe(4);
});

test("loses nothing of what is written to a terminal, and holds the writer up", async () => {
  const script =
    "stty raw; i=0; while [ $i -lt 200 ]; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > /tmp/n; done";
  const exec = await container.exec(sh(script, { terminal: true, user: "root" }));
  const count = async () => Number((await run(request(["cat", "/tmp/n"]))).stdout);
  let bytes = 0;
  for await (const { data } of exec.output) {
    if (bytes === 0) for (let last = -1, now = 0; last !== now; now = await count()) last = now;
    if (bytes === 0) expect(await count()).toBeLessThan(32);
    bytes += data.length;
  }
  expect(bytes).toBe(200 * 65_536);
  expect(await exec.ended).toEqual({ exitCode: 0, oomKilled: false });
  const hungUp = await container.exec(
    sh("trap 'exit 9' HUP; echo go; while :; do sleep 0.02; done", {
      terminal: true,
    }),
  );
  for await (const _ of hungUp.output) break;
  await hungUp.leave();
  expect(await hungUp.ended).toMatchObject({ exitCode: 9 });
  expect(await failure(request(["nope"], { terminal: true }))).toMatchObject({ code: "command_not_found" });
});

test("goes on when the program reads nothing more", async () => {
  const exec = await container.exec(request(["head", "-c", "1"]));
  const reading = outcome(exec);
  for (let count = 0; count < 50; count += 1) await exec.write(new Uint8Array(64 * 1024).fill(65));
  expect(await reading).toMatchObject({ exitCode: 0, stdout: "A" });
});

test("ends a program that is left, whatever it does about it", async () => {
  const hungUp = await container.exec(sh("trap 'exit 9' HUP; echo ready; while :; do sleep 0.02; done"));
  for await (const _ of hungUp.output) break;
  await hungUp.leave();
  expect(await hungUp.ended).toMatchObject({ exitCode: 9 });
  const stubborn = await container.exec(sh("trap '' HUP; echo ready; sleep 500 & wait; wait"));
  for await (const _ of stubborn.output) break;
  await Promise.all([stubborn.leave(), stubborn.leave()]);
  expect(await stubborn.ended).toMatchObject({ exitCode: 137 });
  expect((await run(request(["ps"]))).stdout).not.toContain("sleep 500");
});

test("runs 64 programs at once beside a container's own, and no more", async () => {
  const programs = await Promise.all(Array.from({ length: 64 }, () => container.exec(request(["cat"]))));
  expect(await failure(request(["true"]))).toMatchObject({ code: "too_many" });
  for (const program of programs) program.closeInput();
  for (const program of programs) expect(await program.ended).toEqual({ exitCode: 0, oomKilled: false });
  expect(await run(request(["true"]))).toMatchObject({ exitCode: 0 });
});

test("ends what the process before this one ran beside a container's program, and nothing else", async () => {
  const other = await runtime.start(host.spec(["sleep", "1000"]), new AbortController().signal);
  const left = await other.exec(sh("echo ready; exec sleep 600"));
  for await (const _ of left.output) break;
  // A number that is another's by now: this process's own.
  const foreign = join(statePaths(host.stateDir).execs, other.id, "foreign");
  await mkdir(foreign);
  await writeFile(join(foreign, "pid"), String(process.pid));
  const later = await host.runtime();
  const adopted = (await later.adopt()).find(({ id }) => id === other.id);
  expect(await left.ended).toMatchObject({ exitCode: 137 });
  const usage = await adopted?.usage();
  expect([usage?.pids, adopted?.alive()]).toEqual([1, true]);
  await later.close();
  await other.cleanup();
  await other.removeLog();
});

test("says that a program took all the memory that its container may have, which goes on", async () => {
  const spec = host.spec(["sleep", "1000"], { memoryBytes: 32 * 1024 ** 2 });
  const small = await runtime.start(spec, new AbortController().signal);
  const exec = await small.exec(request(["tail", "-c", "100m", "/dev/zero"]));
  exec.closeInput();
  expect(await outcome(exec)).toMatchObject({ exitCode: 137, signal: "SIGKILL", oomKilled: true });
  expect(small.alive()).toBe(true);
  await small.cleanup();
  await small.removeLog();
});

test("ends with the container, and runs nothing in one that has ended", async () => {
  const other = await runtime.start(host.spec(["sleep", "1000"]), new AbortController().signal);
  const exec = await other.exec(request(["sleep", "1000"]));
  await other.kill();
  expect(await outcome(exec)).toMatchObject({ exitCode: 137, signal: "SIGKILL" });
  await other.cleanup();
  const after = await other.exec(request(["true"])).catch((error: unknown) => error);
  expect(after).toMatchObject({ code: "not_running" });
  await other.removeLog();
});
