import { RegistryError, type Where } from "./error.ts";

const failuresMax = 5;
const firstPauseMs = 1000;
const longestPauseMs = 30_000;
const hostsMax = 1000;

interface Breaker {
  failures: number;
  pauseMs: number;
  openUntilMs: number;
}

/**
 * One circuit breaker per host: after five failures in a row (no answer, or 5xx) nobody asks for a second, then one
 * request tries; each further failure doubles the pause, up to half a minute. An answer closes it.
 */
export class Breakers {
  readonly #hosts = new Map<string, Breaker>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** @throws RegistryError `unreachable`, with the time to wait, while the host's breaker is open */
  check(host: string, where: Where): void {
    const breaker = this.#hosts.get(host);
    if (breaker === undefined || breaker.failures < failuresMax) return;
    const retryAfterMs = breaker.openUntilMs - this.#now();
    if (retryAfterMs > 0) {
      throw new RegistryError("unreachable", `${host} failed ${breaker.failures} times in a row`, where, {
        retryAfterMs,
        next: "Check that the registry is up; it is asked again in a moment.",
      });
    }
    // This request is the trial: the others keep waiting until it has ended.
    breaker.openUntilMs = this.#now() + breaker.pauseMs;
  }

  report(host: string, answered: boolean): void {
    if (answered) {
      this.#hosts.delete(host);
      return;
    }
    const breaker = this.#hosts.get(host) ?? { failures: 0, pauseMs: firstPauseMs / 2, openUntilMs: 0 };
    breaker.failures += 1;
    if (breaker.failures >= failuresMax) {
      breaker.pauseMs = Math.min(breaker.pauseMs * 2, longestPauseMs);
      breaker.openUntilMs = this.#now() + breaker.pauseMs;
    }
    if (this.#hosts.size >= hostsMax) this.#hosts.clear();
    this.#hosts.set(host, breaker);
  }
}
