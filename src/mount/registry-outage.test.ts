import { afterAll, beforeAll, expect, test } from "bun:test";
import { connect } from "node:net";
import type { Fault } from "../../test/kit/fault.ts";
import type { TestProxy } from "../../test/kit/proxy.ts";
import { type ReadOutcome, RegistryScene } from "./registry-scene.test-kit.ts";

const files = "abcdefghijkl";
const readers = 64;
const backlog = 1;
/** Of these the proxy itself cannot be asked while they last. */
const mute: ReadonlySet<string> = new Set(["drops new connections", "is frozen"]);
/** Long enough for patience to have grown. */
const outageMs = 10_000;
const recoveredWithinMs = 1_000;

/** What is wrong with everything that the registry is asked, and how it ends. */
const outages: Readonly<Record<string, (proxy: TestProxy) => Promise<() => Promise<void>>>> = {
  "answers nobody": (proxy) => fault(proxy, { kind: "hang" }),
  "resets connections": (proxy) => fault(proxy, { kind: "reset" }),
  "answers 503": (proxy) => fault(proxy, { kind: "status", status: 503 }),
  "stalls in the middle": (proxy) => fault(proxy, { kind: "stall", afterBytes: 5_000 }),
  "drops new connections": async (proxy) => {
    proxy.pause();
    const [hostname = "", port] = proxy.host.split(":");
    // They fill the queue of what waits to be accepted; the kernel then ignores whoever else knocks.
    const knocking = Array.from({ length: backlog + 2 }, () =>
      connect({ host: hostname, port: Number(port) }),
    );
    for (const socket of knocking) socket.on("error", () => undefined);
    return async () => {
      proxy.resume();
      for (const socket of knocking) socket.destroy();
    };
  },
  "is frozen": async (proxy) => {
    proxy.pause();
    return async () => proxy.resume();
  },
};

async function fault(proxy: TestProxy, action: Fault["action"]): Promise<() => Promise<void>> {
  await proxy.setFaults({ match: ".", action });
  return async () => void (await proxy.setFaults());
}

interface Story {
  readonly usualMs: number;
  /** From the end of the outage. */
  readonly afterMs: readonly number[];
  readonly outcomes: readonly ReadOutcome[];
  readonly requests: number;
  readonly lastedMs: number;
}

let scene: RegistryScene;
const stories = new Map<string, Promise<Story>>();
const cases = Object.keys(outages).map((name) => [name] as const);

async function story(name: string): Promise<Story> {
  const proxy = await scene.anotherProxy(name === "drops new connections" ? { backlog } : {});
  const repository = name.replaceAll(" ", "-").toLowerCase();
  const calm = await scene.mount(`${repository}-before`, { transport: "auto", deadlineMs: 60_000 });
  const usual = await Promise.all(Array.from({ length: readers }, (_, i) => calm.read(files.charAt(i % 12))));
  const mounted = await scene.mount(repository, { transport: "auto", deadlineMs: 60_000, host: proxy.host });
  expect(await mounted.read("warm")).toMatchObject({ ended: "ok" });
  await proxy.resetStats();
  const end = await (outages[name] as (proxy: TestProxy) => Promise<() => Promise<void>>)(proxy);
  const beganMs = performance.now();
  const reads = Array.from({ length: readers }, (_, index) => mounted.read(files.charAt(index % 12)));
  await Bun.sleep(outageMs);
  const { requests } = mute.has(name) ? { requests: 0 } : await proxy.stats();
  const lastedMs = performance.now() - beganMs;
  await end();
  const outcomes = await Promise.all(reads);
  const afterMs = outcomes.map(({ tookMs }) => tookMs - lastedMs);
  return { usualMs: Math.max(...usual.map(({ tookMs }) => tookMs)), afterMs, outcomes, requests, lastedMs };
}

beforeAll(async () => {
  scene = await RegistryScene.start(files);
  for (const [name] of cases) {
    const told = story(name);
    told.catch(() => undefined);
    stories.set(name, told);
    await Bun.sleep(1_000);
  }
}, 60_000);

afterAll(async () => {
  await Promise.allSettled(stories.values());
  await scene.stop();
}, 60_000);

test.each(cases)(
  "a registry that %s is not stormed by 64 readers, who all go on when it is back",
  async (name) => {
    const { usualMs, afterMs, outcomes, requests, lastedMs } = await (stories.get(name) as Promise<Story>);
    expect(outcomes.filter(({ ended }) => ended !== "ok")).toEqual([]);
    expect(Math.max(...afterMs)).toBeLessThan(recoveredWithinMs + 2 * usualMs);
    expect(requests).toBeLessThanOrEqual(20 + (2 * lastedMs) / 1000);
  },
);
