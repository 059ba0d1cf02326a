import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { Dispatcher, type DispatcherDependencies } from "./dispatcher.ts";
import { recoverSilentWorkers } from "./recovery.ts";
import type { Subscription } from "./store.ts";

const log = logger("scheduler");
const roundIntervalMs = 1_000;
/** A worker that stays silent for longer is lost. */
export const silentMs = 30_000;
export const heartbeatIntervalMs = 5_000;

/** A scheduler at work: rounds over the queue whenever something is queued, and every second for what must be retried. */
export class SchedulerLoop {
  readonly #dispatcher: Dispatcher;
  readonly #dependencies: DispatcherDependencies;
  readonly #startedAt = Date.now();
  #subscription: Subscription | undefined;
  #running: Promise<void> = Promise.resolve();
  #again = false;
  #busy = false;
  #closed = false;
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(dependencies: DispatcherDependencies) {
    this.#dependencies = dependencies;
    this.#dispatcher = new Dispatcher(dependencies);
  }

  static async start(dependencies: DispatcherDependencies): Promise<SchedulerLoop> {
    const loop = new SchedulerLoop(dependencies);
    loop.#subscription = await dependencies.store.subscribePending(() => loop.#wake());
    loop.#timer = setInterval(() => loop.#wake(), roundIntervalMs);
    loop.#wake();
    return loop;
  }

  /** Ends after the round that runs, and the hand-overs. */
  async close(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#timer);
    await this.#subscription?.end();
    await this.#running;
    await this.#dispatcher.close();
  }

  #wake(): void {
    this.#again = true;
    if (this.#busy || this.#closed) return;
    this.#busy = true;
    this.#running = this.#rounds().finally(() => {
      this.#busy = false;
    });
  }

  async #rounds(): Promise<void> {
    try {
      while (this.#again && !this.#closed) {
        this.#again = false;
        if (await this.#dispatcher.round()) this.#again = true;
      }
      // After a start the workers first get the time to say that they are there.
      if (Date.now() - this.#startedAt > silentMs) {
        await recoverSilentWorkers(this.#dependencies.store, this.#dependencies.containers, silentMs);
      }
    } catch (error) {
      log.error("a scheduling round failed", { error: messageOf(error) });
    }
  }
}
