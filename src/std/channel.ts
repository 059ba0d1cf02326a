/**
 * A bounded queue between a producer that must not wait and one consumer that iterates. When it is full the oldest
 * entry is dropped: fit for progress, not for data.
 */
export class Channel<T> implements AsyncIterable<T> {
  readonly #entries: T[] = [];
  readonly #entriesMax: number;
  #closed = false;
  #wake: (() => void) | undefined;

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  offer(entry: T): void {
    if (this.#closed) return;
    if (this.#entries.length >= this.#entriesMax) this.#entries.shift();
    this.#entries.push(entry);
    this.#wake?.();
  }

  /** What is queued is still delivered; then the iteration ends. */
  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    for (;;) {
      while (this.#entries.length > 0) yield this.#entries.shift() as T;
      if (this.#closed) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
}
