import type { SpanRun } from "./span-run.ts";

interface Tail {
  /** The span at which this reader will miss next if it goes on. */
  next: number;
  /** Spans of its latest request. */
  window: number;
}

const tailsMax = 16;
/** Below this a reader may still turn out to want one file only: it is not read ahead of before it asks. */
const pipelinedWindow = 4;

/**
 * Finds sequential readers of one layer among its misses and says how far to read ahead of each: 1, 2, 4 … spans.
 * A layer may have several readers at once; the least recent are forgotten.
 */
export class SequenceDetector {
  readonly #windowMax: number;
  readonly #tails: Tail[] = [];

  constructor(windowMax: number) {
    this.#windowMax = windowMax;
  }

  /** A reader missed `span`: how many spans to fetch from there on, itself included. */
  missed(span: number): number {
    const index = this.#tails.findIndex((tail) => span === tail.next);
    const found = index < 0 ? undefined : this.#tails.splice(index, 1)[0];
    const window = found === undefined ? 1 : Math.min(found.window * 2, this.#windowMax);
    this.#tails.unshift({ next: span + window, window });
    this.#tails.length = Math.min(this.#tails.length, tailsMax);
    return window;
  }

  /** What a miss led to: the request may have been cut short by what was there already, or by size. */
  requested(span: number, run: SpanRun): void {
    const tail = this.#tails.find((candidate) => candidate.next === span + candidate.window);
    if (tail !== undefined) tail.next = run.last + 1;
  }

  /**
   * A reader has caught up with a request that is still under way: the next stretch to ask for, so that it need not wait
   * for a whole round trip again. `undefined` when the reader is not (known to be) sequential.
   */
  caughtUp(run: SpanRun): { from: number; spans: number } | undefined {
    const tail = this.#tails.find((candidate) => candidate.next === run.last + 1);
    if (tail === undefined || tail.window < pipelinedWindow) return undefined;
    tail.window = Math.min(tail.window * 2, this.#windowMax);
    const from = tail.next;
    tail.next = from + tail.window;
    return { from, spans: tail.window };
  }
}
