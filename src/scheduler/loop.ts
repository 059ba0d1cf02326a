import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { Dispatcher, type DispatcherDependencies } from "./dispatcher.ts";
import type { FormerWorker, FormerWorkerStore } from "./former-worker-store.ts";
import { recoverFormerWorkers, recoverSilentWorkers } from "./recovery.ts";
import type { Subscription } from "./store.ts";

const log = logger("scheduler");
const roundIntervalMs = 1_000;
/** A worker that stays silent for longer is lost. */
export const silentMs = 30_000;
export const heartbeatIntervalMs = 5_000;

export interface SchedulerLoopDependencies extends DispatcherDependencies {
  readonly formerWorkers: FormerWorkerStore;
}

/** A scheduler at work: rounds over the queue whenever something is queued, and every second for what must be retried. */
export class SchedulerLoop {
  readonly #dispatcher: Dispatcher;
  readonly #dependencies: SchedulerLoopDependencies;
  readonly #startedAt = Date.now();
  /** Those whose containers have not been given up yet. */
  #former: readonly FormerWorker[] = [];
  #subscription: Subscription | undefined;
  #running: Promise<void> = Promise.resolve();
  #again = false;
  #busy = false;
  #closed = false;
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(dependencies: SchedulerLoopDependencies) {
    this.#dependencies = dependencies;
    this.#dispatcher = new Dispatcher(dependencies);
  }

  static async start(dependencies: SchedulerLoopDependencies): Promise<SchedulerLoop> {
    const loop = new SchedulerLoop(dependencies);
    // Before the first round, in which something could be placed there.
    loop.#former = await dependencies.formerWorkers.retire();
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
        const { store, containers, formerWorkers } = this.#dependencies;
        await recoverSilentWorkers(store, containers, silentMs);
        await recoverFormerWorkers({ store, containers, formerWorkers }, this.#former);
        this.#former = [];
      }
    } catch (error) {
      log.error("a scheduling round failed", { error: messageOf(error) });
    }
  }
}
