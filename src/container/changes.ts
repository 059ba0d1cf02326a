/** A change may be missed where nobody sees it: the connection that messages come on may be dead and not say so. */
const lookAgainMs = 5_000;

/** Tells who waits for a container that it changed. Fed by the store's subscription; keeps nothing but listeners. */
export class ContainerChanges {
  readonly #listeners = new Map<string, Set<() => void>>();
  readonly #lookAgainMs: number;

  constructor(options: { readonly lookAgainMs?: number } = {}) {
    this.#lookAgainMs = options.lookAgainMs ?? lookAgainMs;
  }

  /** @param id a container's id; undefined: any may have changed (messages may have been lost) */
  announce(id: string | undefined): void {
    const sets = id === undefined ? this.#listeners.values() : [this.#listeners.get(id) ?? new Set()];
    for (const listeners of sets) for (const listener of listeners) listener();
  }

  /**
   * Yields `changed` at once, and again after each change; several changes while the consumer is busy are one. Yields
   * `again` when nothing was said for a while: look whether a change was missed. Ends when the signal aborts.
   */
  async *of(id: string, signal: AbortSignal): AsyncGenerator<"changed" | "again"> {
    let look: "changed" | "again" | undefined = "changed";
    let wake: (() => void) | undefined;
    const listener = () => {
      look = "changed";
      wake?.();
    };
    const timer = setInterval(() => {
      look ??= "again";
      wake?.();
    }, this.#lookAgainMs);
    const listeners = this.#listeners.get(id) ?? new Set();
    this.#listeners.set(id, listeners.add(listener));
    signal.addEventListener("abort", listener);
    try {
      while (!signal.aborted) {
        if (look !== undefined) {
          const now = look;
          look = undefined;
          yield now;
          continue;
        }
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    } finally {
      clearInterval(timer);
      signal.removeEventListener("abort", listener);
      listeners.delete(listener);
      if (listeners.size === 0) this.#listeners.delete(id);
    }
  }
}
