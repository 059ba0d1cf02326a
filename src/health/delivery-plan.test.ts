import { describe, expect, test } from "bun:test";
import { deliveryLifeMs, nextAttemptMs } from "./delivery-plan.ts";

/** When a delivery that always fails is tried, since its alert. */
function attemptsAt(random: () => number, retryAfterMs?: number): number[] {
  const at = [0];
  for (let ageMs = 0; ; ) {
    const pauseMs = nextAttemptMs({ attempts: at.length, ageMs, retryAfterMs }, random());
    if (pauseMs === undefined) return at;
    ageMs += pauseMs;
    at.push(ageMs);
  }
}

describe("a delivery that fails", () => {
  test("is tried after 5 s, then ever more rarely, a last time after a day", () => {
    const at = attemptsAt(() => 0).map((ms) => ms / 1000);
    expect(at.slice(0, 4)).toEqual([0, 5, 25, 105]);
    expect(at.at(-1)).toBe(deliveryLifeMs / 1000);
    expect(at.length).toBeGreaterThanOrEqual(9);
    expect(at.length).toBeLessThanOrEqual(13);
  });

  test("never waits for longer than six hours, nor less than four fifths of its pause, whatever chance says", () => {
    for (let round = 0; round < 200; round += 1) {
      const at = attemptsAt(Math.random);
      const pauses = at.slice(1).map((ms, index) => ms - (at[index] ?? 0));
      expect(Math.max(...pauses)).toBeLessThanOrEqual(6 * 3_600_000);
      expect(pauses[0]).toBeGreaterThanOrEqual(4_000);
      expect(at.at(-1)).toBe(deliveryLifeMs);
    }
  });

  test("waits for as long as its receiver asks, within six hours and its day", () => {
    const failed = { attempts: 1, ageMs: 0 };
    expect(nextAttemptMs({ ...failed, retryAfterMs: 60_000 }, 0)).toBe(60_000);
    expect(nextAttemptMs({ ...failed, retryAfterMs: 1 }, 0)).toBe(5_000);
    expect(nextAttemptMs({ ...failed, retryAfterMs: 1e12 }, 0)).toBe(6 * 3_600_000);
    expect(nextAttemptMs({ ...failed, ageMs: deliveryLifeMs - 10, retryAfterMs: 60_000 }, 0)).toBe(10);
    expect(attemptsAt(() => 0, 1e12).length).toBe(5);
  });

  test("is given up once its day is over", () => {
    expect(nextAttemptMs({ attempts: 3, ageMs: deliveryLifeMs }, 0)).toBeUndefined();
  });
});
