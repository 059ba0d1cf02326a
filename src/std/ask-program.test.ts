import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { askProgram } from "./ask-program.ts";
import { SpawnError } from "./spawn.ts";

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "oci-node-ask-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const limits = { stdin: "", timeoutMs: 30_000, stdoutBytesMax: 1024 };
const sh = (script: string, options: object = {}) =>
  askProgram(["sh", "-c", script, "sh", dir], { ...limits, ...options });

async function failure(asked: Promise<unknown>): Promise<unknown> {
  try {
    await asked;
  } catch (error) {
    return error;
  }
  throw new Error("it answered");
}

/** Whether a process lives; one that is dead and not yet waited for does not. */
async function lives(pid: string): Promise<boolean> {
  const stat = await readFile(`/proc/${pid.trim()}/stat`, "utf8").catch(() => undefined);
  return stat !== undefined && !/^\d+ \(.*\) [ZX]/.test(stat);
}

describe("a program that is asked", () => {
  test("reads the question and answers with its output and exit code", async () => {
    const answer = await sh('read line; echo "got $line"; exit 3', { stdin: "ghcr.io\n" });
    expect(answer).toEqual({ exitCode: 3, stdout: "got ghcr.io\n" });
  });

  test("may end without reading the question", async () => {
    expect(await sh("exit 0", { stdin: "x".repeat(1024 * 1024) })).toEqual({ exitCode: 0, stdout: "" });
  });

  test("gets the variables given, PATH and locale, and nothing else", async () => {
    const { stdout } = await askProgram(["env"], { ...limits, env: { HOME: "/nowhere", PATH: "/usr/bin" } });
    expect(stdout.trim().split("\n").sort()).toEqual(["HOME=/nowhere", "LANG=C.UTF-8", "PATH=/usr/bin"]);
  });

  test("that hangs is killed with its children when the time is over", async () => {
    const hanging = 'sleep 1000 & echo $! > "$1/child"; echo $$ > "$1/leader"; echo secret; wait';
    const error = await failure(sh(hanging, { timeoutMs: 500 }));
    expect(error).toBeInstanceOf(SpawnError);
    expect((error as SpawnError).code).toBe("timeout");
    expect(String(error)).not.toContain("secret");
    for (const name of ["child", "leader"]) {
      const pid = await readFile(join(dir, name), "utf8");
      while (await lives(pid)) await Bun.sleep(5);
    }
  });

  test("whose output a process outside of its group holds open is left after the time", async () => {
    const started = performance.now();
    const error = await failure(sh('setsid sleep 20 & echo $! > "$1/escaped"; exit 0', { timeoutMs: 500 }));
    expect((error as SpawnError).code).toBe("timeout");
    expect(performance.now() - started).toBeLessThan(10_000);
    process.kill(Number(await readFile(join(dir, "escaped"), "utf8")), "SIGKILL");
  });

  test("that answers without end is killed", async () => {
    const error = await failure(sh("exec yes secret"));
    expect((error as SpawnError).code).toBe("too_large");
  });

  test("is killed when the caller leaves", async () => {
    const leaving = new AbortController();
    const asked = failure(sh('echo $$ > "$1/left"; exec sleep 1000', { signal: leaving.signal }));
    let pid = "";
    while (pid === "") pid = await readFile(join(dir, "left"), "utf8").catch(() => "");
    leaving.abort(new Error("gone"));
    expect(String(await asked)).toContain("gone");
    while (await lives(pid)) await Bun.sleep(5);
  });

  test("that is not there is named", async () => {
    const error = await failure(askProgram([join(dir, "absent")], limits));
    expect((error as SpawnError).code).toBe("not_found");
  });
});
