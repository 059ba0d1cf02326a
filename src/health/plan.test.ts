import { describe, expect, test } from "bun:test";
import type { CheckOutcome } from "./check.ts";
import { expiringWithinMs, type SecretHealth } from "./health.ts";
import { healthAfter } from "./health-after.ts";
import { type Checked, nextCheckAt, type PlanRules, refusedTriesMax, thresholdsMs } from "./plan.ts";

const now = new Date("2026-03-01T12:00:00Z");
const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const rules: PlanRules = { intervalMs: 6 * hourMs, locksNames: false, random: () => 0.5 };
const ok: Checked = { state: "ok", failures: 0, expiresAt: undefined };
const locking = { ...rules, locksNames: true };

function waitMs(checked: Checked, by: PlanRules = rules): number | undefined {
  const at = nextCheckAt(checked, now, by);
  return at && at.getTime() - now.getTime();
}

/** The same numbers each time. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("the next check", () => {
  test("of what works comes after the interval, a fifth earlier or later", () => {
    expect(waitMs(ok)).toBe(6 * hourMs);
    expect(waitMs(ok, { ...rules, random: () => 0 })).toBeCloseTo(4.8 * hourMs, 0);
    expect(waitMs(ok, { ...rules, random: () => 1 })).toBeCloseTo(7.2 * hourMs, 0);
  });

  test("of what ends soon comes more often", () => {
    const expiresAt = new Date(now.getTime() + 10 * dayMs);
    expect(waitMs({ state: "expiring", failures: 0, expiresAt })).toBe(hourMs);
  });

  test("comes just when a threshold before the end is reached", () => {
    for (const beforeMs of thresholdsMs) {
      const expiresAt = new Date(now.getTime() + beforeMs + 7 * minuteMs);
      for (const state of ["ok", "expiring"] as const)
        expect(waitMs({ state, failures: 0, expiresAt })).toBe(7 * minuteMs);
    }
    expect(waitMs({ ...ok, expiresAt: new Date(now.getTime() - dayMs) })).toBe(6 * hourMs);
  });

  test("of what is refused backs off from a quarter of an hour to a day", () => {
    const waits = [1, 2, 3, 4, 8, 100].map((failures) => waitMs({ ...ok, state: "failing", failures }));
    expect(waits).toEqual([15, 30, 60, 120, 1440, 1440].map((minutes) => minutes * minuteMs));
  });

  test("of what could not be asked backs off from a minute to an hour, or waits as long as the registry says", () => {
    const waits = [1, 2, 3, 7, 1000].map((failures) => waitMs({ ...ok, state: "unknown", failures }));
    expect(waits).toEqual([1, 2, 4, 60, 60].map((minutes) => minutes * minuteMs));
    const asked = { ...ok, state: "unknown", failures: 1, retryAfterMs: 3 * hourMs } as const;
    expect(waitMs(asked)).toBe(3 * hourMs);
    expect(waitMs({ ...asked, retryAfterMs: 400 * dayMs })).toBe(dayMs);
  });

  test("does not come by itself after three refusals where names are locked", () => {
    expect(waitMs({ ...ok, state: "failing", failures: refusedTriesMax - 1 }, locking)).toBeNumber();
    expect(waitMs({ ...ok, state: "failing", failures: refusedTriesMax }, locking)).toBeUndefined();
  });
});

describe("over random histories", () => {
  const secret = {
    secretId: "s",
    workspaceId: "w",
    secretName: "hub",
    registry: "docker.io",
    version: 1,
    declaredExpiry: undefined,
  };
  const outcomes: readonly CheckOutcome[] = [
    { verdict: "ok", rights: "pull" },
    { verdict: "refused", rights: "unknown", code: "unauthorized" },
    { verdict: "unknown", rights: "unknown", code: "unreachable" },
    { verdict: "unknown", rights: "unknown", code: "rate_limited", retryAfterMs: 5 * hourMs },
  ];

  test("a version is refused three times in a row at most where names are locked, and not within ten minutes", () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      const random = seeded(seed);
      let health: SecretHealth | undefined;
      let at = now;
      const refusals: number[] = [];
      for (let check = 0; check < 200; check += 1) {
        const outcome = outcomes[Math.floor(random() * outcomes.length)] as CheckOutcome;
        if (outcome.verdict === "ok") refusals.length = 0;
        if (outcome.verdict === "refused") refusals.push(at.getTime());
        expect(refusals.length).toBeLessThanOrEqual(refusedTriesMax);
        const gaps = refusals.slice(1).map((time, index) => time - (refusals[index] ?? 0));
        expect(Math.min(10 * minuteMs, ...gaps)).toBe(10 * minuteMs);
        health = healthAfter(health, secret, outcome, at, { ...locking, random });
        if (health.nextCheckAt === undefined) break;
        expect(health.nextCheckAt.getTime()).toBeGreaterThan(at.getTime());
        at = health.nextCheckAt;
      }
    }
  });

  test("asking in vain never makes a refusal, and never hides one", () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      const random = seeded(seed);
      let health: SecretHealth | undefined;
      let refused = false;
      for (let check = 0; check < 100; check += 1) {
        const outcome = outcomes[Math.floor(random() * outcomes.length)] as CheckOutcome;
        if (outcome.verdict !== "unknown") refused = outcome.verdict === "refused";
        health = healthAfter(health, secret, outcome, new Date(now.getTime() + check * hourMs), rules);
        expect(health.state === "failing").toBe(refused);
      }
    }
  });

  test("an end that is passed is looked at on time, whatever the interval", () => {
    for (let seed = 1; seed <= 100; seed += 1) {
      const random = seeded(seed);
      const endMs = now.getTime() + expiringWithinMs + Math.ceil(random() * 30 * dayMs);
      const outcome: CheckOutcome = { verdict: "ok", rights: "pull", expiresAt: new Date(endMs) };
      let at = now;
      const seen: number[] = [];
      while (at.getTime() < endMs) {
        const next = healthAfter(undefined, secret, outcome, at, { ...rules, random }).nextCheckAt;
        at = next ?? new Date(endMs);
        seen.push(endMs - at.getTime());
      }
      expect(seen).toEqual(expect.arrayContaining([...thresholdsMs]));
    }
  });
});
