import { sleep } from "../std/wait.ts";

/** So long after it was mounted, whatever is read counts as a start that the background must not disturb. */
const startMs = 30_000;

interface Watched {
  readonly untilMs: number;
  /** How many reads there were. */
  readonly reads: () => number;
  last: number;
}

/**
 * What the background of all mounts of a process has to keep to, together: it stays away while a reader of any mount waits
 * or a container starts, and takes no more than one bandwidth.
 */
export class BackgroundBudget {
  readonly #bytesPerSecond: number | undefined;
  readonly #starting = new Set<Watched>();
  #waiting = 0;
  #busyMs = performance.now();
  #freeMs = 0;

  /** @param bytesPerSecond of compressed bytes; `undefined`: no limit */
  constructor(bytesPerSecond?: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Compressed bytes that one request may have: under a low limit no request should stand for many seconds. */
  requestBytes(wanted: number): number {
    return this.#bytesPerSecond === undefined ? wanted : Math.min(wanted, this.#bytesPerSecond);
  }

  /** A request that readers wait for begins. Returns what to call at its end. */
  readersWait(): () => void {
    this.#waiting += 1;
    return () => {
      this.#waiting -= 1;
      this.#busyMs = performance.now();
    };
  }

  /** A mount came up: for a while its reads count, too, when nothing has to be fetched for them. */
  mounted(reads: () => number): void {
    this.#busyMs = performance.now();
    this.#starting.add({ untilMs: this.#busyMs + startMs, reads, last: reads() });
  }

  /** Milliseconds for which no reader of any mount has waited and nothing has started. */
  quietMs(): number {
    const now = performance.now();
    for (const watched of this.#starting) {
      const reads = watched.reads();
      if (reads !== watched.last) this.#busyMs = now;
      watched.last = reads;
      if (now > watched.untilMs) this.#starting.delete(watched);
    }
    return this.#waiting > 0 ? 0 : now - this.#busyMs;
  }

  /** Waits until the bandwidth allows another request. */
  async ready(signal: AbortSignal): Promise<void> {
    for (let left = this.#freeMs - performance.now(); left > 0; left = this.#freeMs - performance.now())
      await sleep(left, signal);
  }

  /** A request of so many bytes was begun. */
  spend(bytes: number): void {
    if (this.#bytesPerSecond === undefined) return;
    this.#freeMs = Math.max(this.#freeMs, performance.now()) + (bytes * 1000) / this.#bytesPerSecond;
  }
}
