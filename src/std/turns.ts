import { setImmediate as yieldToOthers } from "node:timers/promises";

/**
 * Cuts long work on a serving thread into turns: the work asks now and then whether its turn is over, and if so waits
 * until others had theirs.
 */
export class Turns {
  readonly #turnMs: number;
  #end: number;

  constructor(turnMs = 8) {
    this.#turnMs = turnMs;
    this.#end = performance.now() + turnMs;
  }

  get over(): boolean {
    return performance.now() >= this.#end;
  }

  /** Lets everything that waits run, then begins a turn. */
  async next(): Promise<void> {
    await yieldToOthers();
    this.#end = performance.now() + this.#turnMs;
  }
}
