import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Fault } from "../../test/kit/fault.ts";
import { type MountedScene, type ReadOutcome, RegistryScene } from "./registry-scene.test-kit.ts";

const deadlineMs = 3_000;
/** The engine's grace, the kernel's second question, and this machine's other work. */
const slackMs = 2_000;
/** Beside what such a read takes when nothing is wrong. */
const recoveredWithinMs = 1_000;
/** Between the starts of two stories, so that not all of them recover at once. */
const apartMs = 200;
/** A fault goes on for so long after the last reader has come. */
const outageMs = 1_500;

const faults: Readonly<Record<string, Fault["action"]>> = {
  hang: { kind: "hang" },
  reset: { kind: "reset" },
  stall: { kind: "stall", afterBytes: 1_000 },
  truncate: { kind: "truncate", afterBytes: 1_000 },
  corrupt: { kind: "corrupt", atByte: 1_000 },
  "401": { kind: "status", status: 401 },
  "403": { kind: "status", status: 403 },
  "404": { kind: "status", status: 404 },
  "429": { kind: "status", status: 429 },
  "429-wait": { kind: "status", status: 429, headers: { "retry-after": "1" } },
  "500": { kind: "status", status: 500 },
  "503": { kind: "status", status: 503 },
};

/** What is no passing trouble: readers hear of it at once. */
const lasting: ReadonlySet<string> = new Set(["401", "403", "404", "corrupt"]);

interface Story {
  readonly usualMs: number;
  readonly cached: ReadOutcome;
  readonly uncached: ReadOutcome;
  /** Began before the end of the trouble. */
  readonly waiting: ReadOutcome;
  readonly waitingAfterMs: number;
  readonly same: ReadOutcome;
  readonly other: ReadOutcome;
  readonly requests: number;
  readonly lastedMs: number;
}

async function story(scene: RegistryScene, mounted: MountedScene, action: Fault["action"]): Promise<Story> {
  const { name } = mounted;
  const usual = await mounted.read("c");
  expect(await mounted.read("warm")).toMatchObject({ ended: "ok" });
  await scene.setFault(name, action);
  const [before, beganMs] = [await scene.requests(name), performance.now()];
  const [cached, uncached] = await Promise.all([mounted.read("warm2"), mounted.read("a")]);
  const waiting = mounted.read("e");
  await Bun.sleep(outageMs);
  await scene.setFault(name, undefined);
  const requests = (await scene.requests(name)) - before;
  const mendedMs = performance.now();
  const lastedMs = mendedMs - beganMs;
  const [other, same] = await Promise.all([mounted.read("g"), mounted.read("a")]);
  const waited = await waiting;
  const waitingAfterMs = waited.tookMs - outageMs;
  return {
    usualMs: 2 * usual.tookMs,
    cached,
    uncached,
    waiting: waited,
    waitingAfterMs,
    same,
    other,
    requests,
    lastedMs,
  };
}

const cases = Object.entries(faults).flatMap(([fault, action]) =>
  (["file", "loop"] as const).map((transport) => ({ fault, transport, action })),
);
let scene: RegistryScene;
const stories = new Map<string, Promise<Story>>();

beforeAll(async () => {
  scene = await RegistryScene.start("abcdefg");
  for (const { fault, transport, action } of cases) {
    const name = `${fault}-${transport}`;
    const mounted = await scene.mount(name, { transport, deadlineMs });
    const told = story(scene, mounted, action);
    told.catch(() => undefined);
    stories.set(name, told);
    await Bun.sleep(apartMs);
  }
});

afterAll(async () => {
  await Promise.allSettled(stories.values());
  await scene.stop();
});

describe.each(cases)("a registry that answers with $fault, read by $transport", ({ fault, transport }) => {
  const told = (): Promise<Story> => stories.get(`${fault}-${transport}`) as Promise<Story>;

  test("leaves what is cached alone", async () => {
    expect((await told()).cached).toMatchObject({ ended: "ok" });
  });

  test("fails a reader within the deadline", async () => {
    const { uncached } = await told();
    expect(uncached.ended).toBe("EIO");
    expect(uncached.tookMs).toBeLessThan(deadlineMs + slackMs);
  });

  test("serves within a second of its return", async () => {
    const { same, other, waiting, waitingAfterMs, usualMs } = await told();
    const withinMs = recoveredWithinMs + usualMs;
    if (waiting.ended === "ok") expect(waitingAfterMs).toBeLessThan(withinMs);
    expect(waiting.ended).toBe(lasting.has(fault) ? "EIO" : "ok");
    expect(other.ended).toBe("ok");
    expect(same.ended).toBe("ok");
    expect(other.tookMs).toBeLessThan(withinMs);
    expect(same.tookMs).toBeLessThan(withinMs);
  });

  test("is not stormed", async () => {
    const { requests, lastedMs } = await told();
    expect(requests).toBeLessThanOrEqual(6 + (2 * lastedMs) / 1000);
  });
});
