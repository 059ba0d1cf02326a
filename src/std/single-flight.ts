/**
 * One call in flight per key: concurrent callers of the same key share its result, error included.
 * The key is forgotten as soon as the call ends; keeping results is the caller's business.
 */
export class SingleFlight<T> {
  readonly #calls = new Map<string, Promise<T>>();

  run(key: string, call: () => Promise<T>): Promise<T> {
    const running = this.#calls.get(key);
    if (running !== undefined) return running;
    const started = call().finally(() => this.#calls.delete(key));
    this.#calls.set(key, started);
    return started;
  }
}
