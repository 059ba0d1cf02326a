import type { LeaseClock } from "./lease-clock.ts";

/** A seeded stream of numbers from 0 to 1 (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A clock that stands still until it is told to go on; what was to be called later is, in order, on the way. */
export class ManualClock implements LeaseClock {
  readonly random: () => number;
  #nowMs = 0;
  readonly #timers = new Set<{ readonly atMs: number; readonly call: () => void }>();

  constructor(random: () => number = () => 0.5) {
    this.random = random;
  }

  readonly now = (): number => this.#nowMs;

  readonly later = (timeMs: number, call: () => void): (() => void) => {
    const timer = { atMs: this.#nowMs + timeMs, call };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  /** Sleeps by this clock, as the registry room's clock does. */
  readonly sleep = (timeMs: number, signal: AbortSignal): Promise<void> => {
    signal.throwIfAborted();
    return new Promise((resolve) => this.later(timeMs, resolve));
  };

  /** Goes on, and lets everything that this brings about run as far as it comes. */
  async pass(timeMs: number): Promise<void> {
    const endMs = this.#nowMs + timeMs;
    for (;;) {
      const due = [...this.#timers].filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.call();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }
}

/** Everything that is ready to run has run. */
export async function settle(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}
