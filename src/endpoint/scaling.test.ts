import { describe, expect, test } from "bun:test";
import { Needs, needed, type ScalingInput, scale } from "./scaling.ts";

const now = new Date("2030-01-01T00:10:00Z");
const ago = (ms: number) => new Date(now.getTime() - ms);
const spec = { concurrency: 2, containersMin: 0, containersMax: 5, keepWarmMs: 1_000 };

function input(change: Partial<ScalingInput> & { readonly ages?: readonly number[] } = {}): ScalingInput {
  const { ages = [], ...rest } = change;
  return {
    spec,
    demand: { queued: 0, inFlight: 0 },
    living: ages.map((age) => ({ id: `c-${age}`, createdAt: ago(age), ready: true })),
    lastUsedAt: now,
    peak: { needed: 0, watchedMs: 1e9 },
    pausedUntil: undefined,
    now,
    ...rest,
  };
}

/** Numbers that look random and are the same each time (Park and Miller, 1988). */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 48_271) % 2_147_483_647;
    return state % below;
  };
}

describe("what is needed", () => {
  test.each([
    [0, 0, 0],
    [1, 0, 1],
    [0, 2, 1],
    [1, 2, 2],
    [50, 0, 5],
  ])("for %d that wait and %d under way is %d of at most 5, two requests each", (queued, inFlight, count) => {
    expect(needed({ queued, inFlight }, spec)).toBe(count);
  });

  test("is never less than the least", () => {
    expect(needed({ queued: 0, inFlight: 0 }, { ...spec, containersMin: 3 })).toBe(3);
  });
});

describe("scaling", () => {
  test("makes all that is missing at once, but not before a pause after failures is over", () => {
    const busy = { demand: { queued: 50, inFlight: 2 }, ages: [5_000] };
    expect(scale(input(busy))).toEqual({ create: 4, retire: [] });
    expect(scale(input({ ...busy, pausedUntil: ago(-1) })).create).toBe(0);
    expect(scale(input({ ...busy, pausedUntil: ago(1) })).create).toBe(4);
  });

  test("lets the latest go first, and none younger than it keeps them warm", () => {
    expect(scale(input({ ages: [900, 2_000, 3_000, 4_000] })).retire).toEqual(["c-2000", "c-3000", "c-4000"]);
    expect(scale(input({ ages: [2_000, 3_000, 4_000], peak: { needed: 2, watchedMs: 1e9 } })).retire).toEqual(
      ["c-2000"],
    );
  });

  test("keeps one while requests come now and then, and none without", () => {
    expect(scale(input({ ages: [2_000, 3_000], lastUsedAt: ago(900) })).retire).toEqual(["c-2000"]);
    expect(scale(input({ ages: [2_000, 3_000], lastUsedAt: ago(1_000) })).retire).toEqual([
      "c-2000",
      "c-3000",
    ]);
    const least = { ...spec, containersMin: 1 };
    expect(scale(input({ spec: least, ages: [2_000, 3_000], lastUsedAt: ago(9_000) })).retire).toEqual([
      "c-2000",
    ]);
  });

  test("lets nothing go that was busy before this gateway began to watch", () => {
    const peak = { needed: 1, watchedMs: 999 };
    expect(scale(input({ ages: [2_000, 3_000], peak })).retire).toEqual([]);
    expect(scale(input({ ages: [2_000, 3_000], peak, lastUsedAt: ago(1_000) })).retire).toHaveLength(2);
  });

  test("keeps to its bounds whatever comes, and never makes and lets go at once", () => {
    const random = numbers(7);
    for (let round = 0; round < 2_000; round += 1) {
      const containersMax = 1 + random(8);
      const containersMin = random(containersMax + 1);
      const ages = Array.from({ length: random(containersMax + 1) }, (_, at) => random(4_000) + at / 100);
      const given = input({
        spec: { concurrency: 1 + random(4), containersMin, containersMax, keepWarmMs: 1 + random(2_000) },
        demand: { queued: random(20), inFlight: random(20) },
        ages,
        lastUsedAt: ago(random(3_000)),
        peak: { needed: random(containersMax + 1), watchedMs: random(4_000) },
      });
      const { create, retire } = scale(given);
      const after = ages.length + create - retire.length;
      expect(create === 0 || retire.length === 0).toBe(true);
      expect(after).toBeLessThanOrEqual(containersMax);
      expect(after).toBeGreaterThanOrEqual(Math.min(needed(given.demand, given.spec), containersMax));
      expect(after).toBeGreaterThanOrEqual(containersMin);
    }
  });
});

describe("the most that was needed", () => {
  test("is that of the window, each until the next began", () => {
    const needs = new Needs();
    for (const [at, count] of [
      [0, 5],
      [100, 1],
      [200, 1],
      [300, 3],
      [400, 2],
    ] as const)
      needs.observe("d", count, 1_000, at);
    expect(needs.peak("d", 400)).toEqual({ needed: 5, watchedMs: 400 });
    needs.observe("d", 2, 1_000, 1_099);
    expect(needs.peak("d", 1_099).needed).toBe(5);
    needs.observe("d", 2, 1_000, 1_100);
    expect(needs.peak("d", 1_100).needed).toBe(3);
    needs.observe("d", 2, 1_000, 1_400);
    expect(needs.peak("d", 1_400).needed).toBe(2);
    expect(needs.peak("other", 1_400)).toEqual({ needed: 0, watchedMs: 0 });
  });

  test("is never less than what was observed within the window", () => {
    const random = numbers(11);
    const needs = new Needs();
    const seen: { at: number; needed: number }[] = [];
    for (let at = 0; at < 5_000; at += 1 + random(20)) {
      const count = random(10);
      seen.push({ at, needed: count });
      needs.observe("d", count, 200, at);
      const within = seen.filter((one) => one.at > at - 200);
      expect(needs.peak("d", at).needed).toBeGreaterThanOrEqual(Math.max(...within.map((one) => one.needed)));
    }
  });
});
