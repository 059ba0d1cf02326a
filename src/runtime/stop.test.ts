import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { RunningContainer } from "./container.ts";
import { imageConfig, TestHost } from "./runtime.test-kit.ts";
import type { Runtime } from "./runtime.ts";
import type { ContainerSpec } from "./spec.ts";

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

/** Starts the script and waits for its first line, so that its traps are set. */
async function startReady(script: string, more: Partial<ContainerSpec> = {}): Promise<RunningContainer> {
  const spec = host.spec(["sh", "-c", script], more);
  const container = await runtime.start(spec, new AbortController().signal);
  for await (const _ of runtime.logs(spec.id, { follow: true })) break;
  return container;
}

test("lets a program end itself on the stop signal", async () => {
  const container = await startReady("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done");
  await container.stop(10_000);
  expect(await container.exited).toMatchObject({ exitCode: 3 });
  expect(container.alive()).toBe(false);
  await container.cleanup();
});

test("sends the image's own stop signal", async () => {
  const config = imageConfig({ StopSignal: "SIGUSR1" });
  const script = "trap 'exit 4' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
  const container = await startReady(script, { imageConfig: config });
  await container.stop(10_000);
  expect(await container.exited).toMatchObject({ exitCode: 4 });
  await container.cleanup();
});

test("refuses a stop signal that is none", async () => {
  const spec = host.spec(["true"], { imageConfig: imageConfig({ StopSignal: "SIGNOT" }) });
  const failure = await runtime.start(spec, new AbortController().signal).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "bad_config" });
});

test("kills a program, and its children, that ignore the stop signal", async () => {
  const container = await startReady("trap '' TERM; (while :; do sleep 0.05; done) & echo ready; wait; wait");
  await container.stop(200);
  expect(await container.exited).toMatchObject({ exitCode: 137, signal: "SIGKILL", oomKilled: false });
  await container.cleanup();
});

test("can be stopped, killed and cleaned up again and again, in any order", async () => {
  const container = await startReady("echo ready; exec sleep 1000");
  await Promise.all([container.kill(), container.stop(10), container.kill()]);
  await Promise.all([container.cleanup(), container.cleanup()]);
  await container.stop(10);
  await container.kill();
  await container.cleanup();
  await container.removeLog();
  await container.removeLog();
  expect(await host.leftovers()).toEqual([]);
});

test("cleans up a container that still runs", async () => {
  const container = await startReady("echo ready; exec sleep 1000");
  await container.cleanup();
  expect(await container.exited).toMatchObject({ exitCode: 137 });
  expect(await host.leftovers()).toEqual([]);
});

test("ends a container whose monitor was lost, and says that nobody knows its exit code", async () => {
  const container = await startReady("echo ready; exec sleep 1000");
  const home = join(host.stateDir, "containers", container.id);
  process.kill(Number(await readFile(join(home, "monitor.pid"), "utf8")), "SIGKILL");
  expect(await container.exited).toMatchObject({ exitCode: 255, reason: "monitor lost", oomKilled: false });
  await container.cleanup();
  expect(container.alive()).toBe(false);
  expect(await readdir(join(host.stateDir, "containers"))).toEqual([]);
});
