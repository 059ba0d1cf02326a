import { describe, expect, test } from "bun:test";
import { RegistryError, type RegistryErrorCode } from "./error.ts";
import { virtualClock } from "./quirks.test-kit.ts";
import { backoffMs, parseRetryAfter, withRetry } from "./retry.ts";

const where = { registry: "r.test", repository: "a" };
const signal = new AbortController().signal;
const failure = (code: RegistryErrorCode, retryAfterMs?: number): RegistryError =>
  new RegistryError(code, code, where, { retryAfterMs });

describe("Retry-After", () => {
  const now = Date.UTC(2026, 0, 2, 3, 4, 5);
  test.each([
    ["120", 120_000],
    ["0", 0],
    ["Fri, 02 Jan 2026 03:05:05 GMT", 60_000],
    ["Fri, 02 Jan 2026 03:00:00 GMT", 0],
    [String(now / 1000 + 30), 30_000],
    [String(now / 1000 - 30), 0],
    ["999999999999999", 7 * 24 * 3600_000],
    ["Fri, 02 Jan 9026 03:05:05 GMT", 7 * 24 * 3600_000],
    ["-1", undefined],
    ["1.5", undefined],
    ["soon", undefined],
    ["", undefined],
    [null, undefined],
  ])("%p", (field, expected) => {
    expect(parseRetryAfter(field, now)).toBe(expected);
  });
});

describe("retrying", () => {
  const rule = { attemptsMax: 5, totalTimeoutMs: 120_000 };
  const always = (error: Error) => async (): Promise<never> => {
    throw error;
  };

  test("pauses longer each time, within bounds, half of it by chance", () => {
    expect([1, 2, 3, 4].map((attempt) => backoffMs(attempt, 1))).toEqual([250, 500, 1000, 2000]);
    expect(backoffMs(1, 0)).toBe(125);
    expect(backoffMs(50, 1)).toBe(10_000);
  });

  test("tries again what passes, up to the number of attempts", async () => {
    const clock = virtualClock();
    await expect(withRetry(rule, clock, signal, always(failure("unreachable")))).rejects.toThrow(
      "unreachable",
    );
    expect(clock.slept).toEqual([250, 500, 1000, 2000]);
  });

  test("does not try again what stays", async () => {
    for (const code of [
      "unauthorized",
      "denied",
      "not_found",
      "tls",
      "egress_refused",
      "digest_mismatch",
    ] as const) {
      const clock = virtualClock();
      await expect(withRetry(rule, clock, signal, always(failure(code)))).rejects.toThrow(code);
      expect(clock.slept).toEqual([]);
    }
  });

  test("waits as long as the registry asks, and gives up at once when that is too long", async () => {
    const clock = virtualClock();
    let count = 0;
    const work = async (): Promise<number> => {
      count += 1;
      if (count === 1) throw failure("rate_limited", 30_000);
      return count;
    };
    expect(await withRetry(rule, clock, signal, work)).toBe(2);
    expect(clock.slept).toEqual([30_000]);
    const long = withRetry(rule, clock, signal, always(failure("rate_limited", 3600_000)));
    await expect(long).rejects.toMatchObject({ code: "rate_limited", retryAfterMs: 3600_000 });
    expect(clock.slept).toEqual([30_000]);
  });

  test("ends with the caller's reason", async () => {
    const controller = new AbortController();
    const work = async (): Promise<never> => {
      controller.abort(new Error("enough"));
      throw failure("unreachable");
    };
    await expect(withRetry(rule, virtualClock(), controller.signal, work)).rejects.toThrow("enough");
  });
});
