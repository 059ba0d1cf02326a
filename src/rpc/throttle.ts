const keysMax = 4096;

/** Lets the same thing through once in a while. Remembers so many things at most, the latest. */
export class Throttle {
  readonly #until = new Map<string, number>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  lets(key: string, everyMs: number): boolean {
    const now = this.#now();
    if ((this.#until.get(key) ?? 0) > now) return false;
    this.#until.delete(key);
    this.#until.set(key, now + everyMs);
    const [oldest] = this.#until.keys();
    if (this.#until.size > keysMax && oldest !== undefined) this.#until.delete(oldest);
    return true;
  }
}
