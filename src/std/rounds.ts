import { messageOf } from "./error.ts";
import { logger } from "./log.ts";

const log = logger("rounds");

/**
 * Work that is done over and over: when something wakes it, and every so often for what nobody tells. Never twice at once; a
 * wake during a round makes another follow. A round that fails is told in the log, and the next one comes as usual.
 */
export class Rounds {
  readonly #name: string;
  readonly #round: (signal: AbortSignal) => Promise<void>;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #ending = new AbortController();
  #running: Promise<void> | undefined;
  #again = false;

  /** @param round its signal aborts when the rounds are closed */
  constructor(name: string, everyMs: number, round: (signal: AbortSignal) => Promise<void>) {
    this.#name = name;
    this.#round = round;
    this.#timer = setInterval(() => this.wake(), everyMs);
    this.wake();
  }

  wake(): void {
    this.#again = true;
    if (this.#ending.signal.aborted) return;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      // Woken between the last look and now.
      if (this.#again) this.wake();
    });
  }

  /** Ends with the round that runs. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#ending.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#ending;
    while (this.#again && !signal.aborted) {
      this.#again = false;
      try {
        await this.#round(signal);
      } catch (error) {
        if (!signal.aborted) log.error("a round failed", { of: this.#name, error: messageOf(error) });
      }
    }
  }
}
