import { isPassing, RegistryError } from "./error.ts";
import type { Clock } from "./retry.ts";

/** Long enough that a reader who asks in a loop does not make a storm, short enough to be over when the cause is. */
const refusedForMs = 500;
const longestMs = 60_000;
const refusalsMax = 1000;

interface Refusal {
  readonly error: RegistryError;
  readonly untilMs: number;
}

/**
 * What a repository has just refused, told again for a moment without asking: a blob, or everything when the credential
 * is not good enough or the registry limits how often it may be asked.
 */
export class Refusals {
  readonly #clock: Clock;
  readonly #refused = new Map<string, Refusal>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @throws RegistryError what was refused lately */
  check(digest: string): void {
    for (const key of ["", digest]) {
      const refusal = this.#refused.get(key);
      if (refusal === undefined) continue;
      if (this.#clock.now() < refusal.untilMs) throw refusal.error;
      this.#refused.delete(key);
    }
  }

  remember(digest: string, error: unknown): void {
    if (!(error instanceof RegistryError)) return;
    const limited = error.code === "rate_limited" && error.retryAfterMs !== undefined;
    if (isPassing(error) && !limited) return;
    if (this.#refused.size >= refusalsMax) this.#refused.clear();
    const all = limited || error.code === "unauthorized" || error.code === "denied";
    const pauseMs = limited ? Math.max(refusedForMs, error.retryAfterMs ?? 0) : refusedForMs;
    const untilMs = this.#clock.now() + Math.min(pauseMs, longestMs);
    this.#refused.set(all ? "" : digest, { error, untilMs });
  }
}
