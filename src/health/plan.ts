import { expiringWithinMs, type HealthState } from "./health.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

/** Before the end of a credential; its state or what people are told changes at each of them. */
export const thresholdsMs = [expiringWithinMs, 3 * dayMs, dayMs, 0] as const;
/** Refused tries in a row of one version at a registry that locks user names. */
export const refusedTriesMax = 3;

const failingFirstMs = 15 * minuteMs;
const failingLongestMs = dayMs;
const unknownFirstMs = minuteMs;
const unknownLongestMs = hourMs;
const expiringLongestMs = hourMs;
const retryAfterLongestMs = dayMs;
/** Whoever waits is late by up to so much of the time, or early. */
const jitter = 0.2;

/** What a check was and what was there before it, as far as the time of the next one goes. */
export interface Checked {
  readonly state: HealthState;
  /** Checks in a row that ended so, this one included. */
  readonly failures: number;
  readonly expiresAt: Date | undefined;
  /** What the registry asked for. */
  readonly retryAfterMs?: number | undefined;
}

export interface PlanRules {
  /** `[health] check_interval`. */
  readonly intervalMs: number;
  /** Whether several failed logins lock the user name at this registry, also for its owner. */
  readonly locksNames: boolean;
  /** From 0 to 1. */
  readonly random: () => number;
}

/**
 * When a secret is to be checked again by itself; `undefined`: not any more. What works is checked every interval (what ends
 * soon more often, and just when a threshold is reached), what is refused at 15 minutes to a day, and at registries that
 * lock user names {@link refusedTriesMax} times at most. What could not be asked follows in a minute to an hour.
 */
export function nextCheckAt(checked: Checked, now: Date, rules: PlanRules): Date | undefined {
  switch (checked.state) {
    case "ok":
    case "expiring": {
      const { intervalMs } = rules;
      const usualMs = checked.state === "ok" ? intervalMs : Math.min(intervalMs, expiringLongestMs);
      const at = now.getTime() + varied(usualMs, rules.random);
      return new Date(Math.min(at, nextThresholdMs(checked.expiresAt, now)));
    }
    case "failing":
      if (rules.locksNames && checked.failures >= refusedTriesMax) return undefined;
      return later(now, checked, doubled(failingFirstMs, failingLongestMs, checked.failures), rules.random);
    case "unknown":
      return later(now, checked, doubled(unknownFirstMs, unknownLongestMs, checked.failures), rules.random);
  }
}

/** The first checks of many secrets that nobody has checked yet, spread over the time that they have. */
export const firstChecksWithinMs = hourMs;

/** The moment at which the next threshold before an end is passed; infinite when none is left. */
function nextThresholdMs(expiresAt: Date | undefined, now: Date): number {
  if (expiresAt === undefined) return Number.POSITIVE_INFINITY;
  const moments = thresholdsMs.map((beforeMs) => expiresAt.getTime() - beforeMs);
  return Math.min(...moments.filter((momentMs) => momentMs > now.getTime()));
}

function later(now: Date, { retryAfterMs = 0 }: Checked, usualMs: number, random: () => number): Date {
  const leastMs = Math.min(retryAfterMs, retryAfterLongestMs);
  return new Date(now.getTime() + Math.max(varied(usualMs, random), leastMs));
}

function doubled(firstMs: number, longestMs: number, count: number): number {
  return Math.min(firstMs * 2 ** Math.min(Math.max(count, 1) - 1, 30), longestMs);
}

function varied(timeMs: number, random: () => number): number {
  return timeMs * (1 - jitter + 2 * jitter * random());
}
