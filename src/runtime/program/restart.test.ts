import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { defaultOptions, type RestartPolicy } from "../../container/options.ts";
import { writeFileAtomic } from "../../std/atomic-file.ts";
import type { RunningContainer } from "../container.ts";
import { TestHost, textOf } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import { nextRestart } from "./restart-policy.ts";
import type { RestartNews } from "./restarts.ts";

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});

afterAll(async () => {
  const left = await host.leftovers();
  await host.close();
  expect(left).toEqual([]);
});

const start = (script: string, restart: RestartPolicy): Promise<RunningContainer> =>
  runtime.start(
    host.spec(["sh", "-c", script], { options: { ...defaultOptions, restart } }),
    new AbortController().signal,
  );

test("waits twice as long each time, up to a minute, and begins anew after a program that ran", () => {
  const fails = { exitCode: 1 };
  let restarts = { kind: "always", retriesMax: 0, count: 0, delayMs: 0 } as const as Parameters<
    typeof nextRestart
  >[0];
  const delays: number[] = [];
  for (let count = 0; count < 12; count += 1) {
    restarts = nextRestart(restarts, fails, 1) ?? restarts;
    delays.push(restarts.delayMs);
  }
  expect(delays).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
  expect(nextRestart(restarts, fails, 10_000)).toEqual({ ...restarts, count: 13, delayMs: 100 });
  expect(nextRestart({ ...restarts, kind: "no" }, fails, 1)).toBeUndefined();
  expect(nextRestart({ ...restarts, kind: "on-failure" }, { exitCode: 0 }, 1)).toBeUndefined();
  expect(nextRestart({ ...restarts, kind: "always" }, { exitCode: 0 }, 1)).toBeDefined();
  expect(nextRestart(restarts, { exitCode: 255, reason: "monitor lost" }, 1)).toBeUndefined();
});

test("starts a program that fails again, on what it wrote, as often as is allowed", async () => {
  const container = await start("echo x >> /count; echo run $(cat /count | wc -l); exit 5", {
    kind: "on-failure",
    retriesMax: 2,
  });
  const output = textOf(runtime.logs(container.id, { follow: true }));
  const first = container.pid;
  const news: RestartNews[] = [];
  container.supervise((one) => news.push(one));
  expect(await container.exited).toMatchObject({ exitCode: 5 });
  expect(news.map(({ kind, restarts }) => [kind, restarts.count, restarts.delayMs])).toEqual([
    ["waits", 1, 100],
    ["started", 1, 100],
    ["waits", 2, 200],
    ["started", 2, 200],
  ]);
  expect(container.pid).not.toBe(first);
  expect(await output).toBe("run 1\nrun 2\nrun 3\n");
  await container.cleanup();
  await container.removeLog();
});

test("starts nothing again that was stopped or killed, running or waiting", async () => {
  const always = { kind: "always", retriesMax: 0 } as const;
  const stopped = await start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done", always);
  stopped.supervise(() => {});
  for await (const _ of runtime.logs(stopped.id, { follow: true })) break;
  await stopped.stop(10_000);
  expect(await stopped.exited).toMatchObject({ exitCode: 3 });
  const killed = await start("exec sleep 1000", always);
  killed.supervise(() => {});
  await killed.signal(9);
  expect(await killed.exited).toMatchObject({ exitCode: 137, signal: "SIGKILL" });
  const waiting = await start("exit 4", always);
  const waits = Promise.withResolvers<void>();
  waiting.supervise(({ kind, restarts }) => kind === "waits" && restarts.count === 4 && waits.resolve());
  await waits.promise;
  expect(waiting.alive()).toBe(false);
  expect(waiting.goesOn()).toBe(true);
  await waiting.stop(10_000);
  expect(await waiting.exited).toMatchObject({ exitCode: 4 });
  for (const container of [stopped, killed, waiting]) {
    await container.cleanup();
    await container.removeLog();
  }
});

test("goes on after a restart of the worker, whether the program has just ended or is to be started", async () => {
  const script = "echo x >> /count; [ $(cat /count | wc -l) = 3 ] && exec sleep 1000; exit 6";
  const container = await start(script, { kind: "on-failure", retriesMax: 5 });
  // Nobody looks after it any more: as if this process had ended by now.
  while (container.alive()) await Bun.sleep(5);
  const path = join(host.stateDir, "containers", container.id, "state.json");
  const adopt = async (wanted: number) => {
    const present = await host.runtime();
    const [adopted] = await present.adopt();
    expect(adopted?.goesOn()).toBe(true);
    const started = Promise.withResolvers<void>();
    adopted?.supervise(({ kind, restarts }) => {
      if (kind === "started" && restarts.count === wanted) started.resolve();
    });
    await started.promise;
    return { present, adopted };
  };
  const second = await adopt(2);
  const state = JSON.parse(await readFile(path, "utf8"));
  expect(state).toMatchObject({ phase: "running", restarts: { count: 2, delayMs: 200 } });
  await second.present.close();
  // The next one ends in the middle of a start: what it had made by then is ended, and made anew.
  const ended = { exitCode: 6, oomKilled: false, finishedAt: new Date().toISOString() };
  await writeFileAtomic(path, JSON.stringify({ ...state, phase: "waiting", ended }));
  const third = await adopt(2);
  expect(third.adopted?.pid).not.toBe(second.adopted?.pid);
  await container.kill();
  await third.adopted?.cleanup();
  await third.adopted?.removeLog();
});
