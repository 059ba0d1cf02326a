/** Lets so many calls run at once; the others wait in the order in which they came, and of those there is a limit, too. */
export class FewAtOnce {
  readonly #runningMax: number;
  readonly #waitingMax: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(runningMax: number, waitingMax: number) {
    this.#runningMax = runningMax;
    this.#waitingMax = waitingMax;
  }

  /** Whether one more can neither run nor wait. */
  get isFull(): boolean {
    return this.#running >= this.#runningMax && this.#waiting.length >= this.#waitingMax;
  }

  /** Runs the call when its turn has come. Look at {@link isFull} before: here everybody is let in. */
  async run<T>(call: () => Promise<T>): Promise<T> {
    // A place that becomes free is handed on as it is, so that nobody who comes just then takes it.
    if (this.#running >= this.#runningMax) await new Promise<void>((go) => this.#waiting.push(go));
    else this.#running += 1;
    try {
      return await call();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }
}
