/** Tells who waits for a container that it changed. Fed by the store's subscription; keeps nothing but listeners. */
export class ContainerChanges {
  readonly #listeners = new Map<string, Set<() => void>>();

  /** @param id a container's id; undefined: any may have changed (messages may have been lost) */
  announce(id: string | undefined): void {
    const sets = id === undefined ? this.#listeners.values() : [this.#listeners.get(id) ?? new Set()];
    for (const listeners of sets) for (const listener of listeners) listener();
  }

  /**
   * Yields at once, and again after each change; several changes while the consumer is busy are one. Ends when the
   * signal aborts.
   */
  async *of(id: string, signal: AbortSignal): AsyncGenerator<void> {
    let changed = true;
    let wake: (() => void) | undefined;
    const listener = () => {
      changed = true;
      wake?.();
    };
    const listeners = this.#listeners.get(id) ?? new Set();
    this.#listeners.set(id, listeners.add(listener));
    signal.addEventListener("abort", listener);
    try {
      while (!signal.aborted) {
        if (changed) {
          changed = false;
          yield;
          continue;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      signal.removeEventListener("abort", listener);
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(id);
    }
  }
}
