const firstPauseMs = 5_000;
const longestPauseMs = 6 * 3_600_000;
/** After so long a delivery is given up. */
export const deliveryLifeMs = 24 * 3_600_000;

export interface FailedAttempt {
  /** Attempts that failed, this one included. */
  readonly attempts: number;
  /** Since the alert was to be delivered. */
  readonly ageMs: number;
  /** What the receiver asked for. */
  readonly retryAfterMs?: number | undefined;
}

/**
 * How long a delivery that failed waits for its next attempt: 5 s, then four times as long each time, up to 6 h, a fifth of it by
 * chance; longer where the receiver wants that, up to the same 6 h. The last attempt is made when a day is over.
 *
 * @param random from 0 to 1
 * @returns undefined: it is given up
 */
export function nextAttemptMs(failed: FailedAttempt, random: number): number | undefined {
  const leftMs = deliveryLifeMs - failed.ageMs;
  if (leftMs <= 0) return undefined;
  const fullMs = Math.min(firstPauseMs * 4 ** (failed.attempts - 1), longestPauseMs);
  const pauseMs = fullMs * (1 - random / 5);
  const askedMs = Math.min(failed.retryAfterMs ?? 0, longestPauseMs);
  return Math.min(Math.max(pauseMs, askedMs), leftMs);
}
