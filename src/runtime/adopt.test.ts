import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, readFile, watch, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { statePaths } from "./layout.ts";
import { TestHost, textOf } from "./runtime.test-kit.ts";
import type { ContainerState } from "./state.ts";

let host: TestHost;

beforeAll(async () => {
  host = await TestHost.open();
});

afterEach(async () => {
  expect(await host.leftovers()).toEqual([]);
});

afterAll(() => host.close());

/** Has another process start the script, wait for its first line, and die by SIGKILL. */
async function startInDyingProcess(script: string, until?: "line" | "created" | "recorded"): Promise<string> {
  const spec = host.spec(["sh", "-c", script]);
  await host.startInDyingProcess(spec, until);
  return spec.id;
}

test("adopts a container that outlived the process that started it", async () => {
  const id = await startInDyingProcess(
    "trap 'echo bye; exit 6' TERM; echo hello; while :; do sleep 0.05; done",
  );
  const runtime = await host.runtime();
  const [container] = await runtime.adopt();
  expect(container).toMatchObject({ id, imageRoot: host.imageRoot, workspaceId: "w", attempt: 1 });
  expect(container?.alive()).toBe(true);
  expect(await runtime.adopt()).toEqual([]);
  const output = textOf(runtime.logs(id, { follow: true }));
  await container?.stop(10_000);
  expect(await container?.exited).toMatchObject({ exitCode: 6 });
  expect(await output).toBe("hello\nbye\n");
  await container?.cleanup();
  await container?.removeLog();
});

test("reports how a container ended while nobody watched", async () => {
  const id = await startInDyingProcess(
    "echo hello; while [ ! -e /gate ]; do sleep 0.02; done; echo end; exit 9",
  );
  const exitFile = once(statePaths(host.stateDir).exits, id);
  await writeFile(join(host.rootOf(id), "gate"), "");
  await exitFile;
  const runtime = await host.runtime();
  const [container] = await runtime.adopt();
  expect(container?.alive()).toBe(false);
  expect(await container?.exited).toMatchObject({ exitCode: 9, oomKilled: false });
  expect(await textOf(runtime.logs(id, { follow: true }))).toBe("hello\nend\n");
  await container?.cleanup();
  expect(await textOf(runtime.logs(id))).toBe("hello\nend\n");
  await runtime.removeLog(id);
});

test("reports how a container ended after the process before had left it in good order", async () => {
  const before = await host.runtime();
  const script = "while [ ! -e /gate ]; do sleep 0.02; done; exit 9";
  const { id, pid } = await before.start(host.spec(["sh", "-c", script]), new AbortController().signal);
  // No container has ended yet: the folder for their exit codes is empty.
  await before.close();
  await writeFile(join(host.rootOf(id), "gate"), "");
  await gone(pid);
  const [container] = await (await host.runtime()).adopt();
  expect(await container?.exited).toMatchObject({ exitCode: 9 });
  await container?.cleanup();
  await container?.removeLog();
});

/** Resolves when the process is there no more, and so its monitor has written how it ended. */
async function gone(pid: number): Promise<void> {
  while (existsSync(`/proc/${pid}`)) await Bun.sleep(5);
}

/** Resolves when the directory gets the file. */
async function once(directory: string, file: string): Promise<void> {
  for await (const event of watch(directory)) if (event.filename === file) return;
}

for (const until of ["created", "recorded"] as const) {
  test(`removes a container whose start got no further than ${until}`, async () => {
    const id = await startInDyingProcess("echo never", until);
    const runtime = await host.runtime();
    expect(await runtime.adopt()).toEqual([]);
    const logs = await Array.fromAsync(runtime.logs(id)).catch((error: unknown) => error);
    expect(logs).toMatchObject({ code: "not_found" });
  });
}

test("removes a directory that holds no state", async () => {
  const runtime = await host.runtime();
  await mkdir(join(host.stateDir, "containers", "half", "upper"), { recursive: true });
  expect(await runtime.adopt()).toEqual([]);
});

test("does not take another process, or another boot's, for the container", async () => {
  const id = await startInDyingProcess("echo hello; exec sleep 1000");
  const path = join(host.stateDir, "containers", id, "state.json");
  const state = JSON.parse(await readFile(path, "utf8")) as ContainerState;
  const cases: ContainerState[] = [
    { ...state, init: { pid: process.pid, startTicks: "1" }, monitor: { pid: process.pid, startTicks: "1" } },
    { ...state, bootId: "another" },
  ];
  const reasons = ["monitor lost", "its host was started anew"];
  for (const [at, changed] of cases.entries()) {
    await writeFileAtomic(path, JSON.stringify(changed));
    const [container] = await (await host.runtime()).adopt();
    expect(container?.alive()).toBe(false);
    expect(await container?.exited).toMatchObject({ exitCode: 255, reason: reasons[at] });
    if (changed === cases.at(-1)) {
      await container?.cleanup();
      await container?.removeLog();
    }
  }
});
