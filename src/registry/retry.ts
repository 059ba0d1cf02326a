import { isPassing, RegistryError } from "./error.ts";

/** Time, as the retry rules see it. Tests make it virtual. */
export interface Clock {
  readonly now: () => number;
  /** Resolves after the time, or rejects with the signal's reason. */
  readonly sleep: (timeMs: number, signal: AbortSignal) => Promise<void>;
  /** From 0 to 1. */
  readonly random: () => number;
}

export interface RetryRule {
  readonly attemptsMax: number;
  readonly totalTimeoutMs: number;
  /** The next attempt waits at its host, which knows when it works again, instead of here. */
  readonly inLine?: boolean;
}

const firstPauseMs = 250;
const longestPauseMs = 10_000;
/** What a registry says beyond this is no time that anybody waits for. */
const longestRetryAfterMs = 7 * 24 * 3600_000;

/** The pause before a second try that then waits for its turn at its host. */
export function linePauseMs(random: number): number {
  return 100 + 100 * random;
}

/** The pause before the attempt `attempt + 1` (1 is the first): doubled each time, capped, half of it by chance. */
export function backoffMs(attempt: number, random: number): number {
  const full = Math.min(firstPauseMs * 2 ** (attempt - 1), longestPauseMs);
  return full / 2 + (full / 2) * random;
}

/**
 * Runs an attempt until it succeeds, fails for good, or attempts or time run out; what passes (no connection, timeout,
 * 408, 429, 5xx) is tried again after a pause, or after the time that the registry asks for.
 *
 * @param attempt gets the time that is left for it, and (when it is not the first) how long its host is to be left alone
 */
export async function withRetry<T>(
  rule: RetryRule,
  clock: Clock,
  signal: AbortSignal,
  attempt: (remainingMs: number, againAfterMs: number | undefined) => Promise<T>,
): Promise<T> {
  const endMs = clock.now() + rule.totalTimeoutMs;
  let againAfterMs: number | undefined;
  for (let count = 1; ; count += 1) {
    try {
      return await attempt(Math.max(1, endMs - clock.now()), againAfterMs);
    } catch (error) {
      if (!isPassing(error) || count >= rule.attemptsMax) throw error;
      againAfterMs = 0;
      if (rule.inLine === true && error.retryAfterMs === undefined) {
        againAfterMs = linePauseMs(clock.random());
        if (clock.now() + againAfterMs >= endMs) throw error;
        continue;
      }
      const pauseMs = Math.max(backoffMs(count, clock.random()), error.retryAfterMs ?? 0);
      if (clock.now() + pauseMs >= endMs) throw error;
      await clock.sleep(pauseMs, signal);
    }
  }
}

/**
 * `Retry-After` in milliseconds from now: seconds, an HTTP date (RFC 9110, section 10.2.3), or a Unix time in seconds
 * (Docker Hub). `undefined` when there is none that makes sense.
 */
export function parseRetryAfter(field: string | null, nowMs: number): number | undefined {
  const saidMs = readRetryAfter(field?.trim() ?? "", nowMs);
  return saidMs === undefined ? undefined : Math.min(saidMs, longestRetryAfterMs);
}

function readRetryAfter(text: string, nowMs: number): number | undefined {
  if (/^\d{1,15}$/.test(text)) {
    const seconds = Number(text);
    return seconds >= 1_000_000_000 ? Math.max(0, seconds * 1000 - nowMs) : seconds * 1000;
  }
  const date = /^[A-Z][a-z]{2,8},? /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** Errors by which a whole operation, not one request, may be continued. */
export function mayResume(error: unknown): boolean {
  return isPassing(error) || (error instanceof RegistryError && error.code === "blob_truncated");
}
