import type { SpanRun } from "./span-run.ts";

interface Tail {
  /** Where this reader was first and last seen, in spans. */
  readonly start: number;
  position: number;
  /** The first span that was not asked for on its behalf. */
  next: number;
  /** How many spans it is given at once. */
  window: number;
}

const tailsMax = 16;
/** Below this a reader may still turn out to want one file only: it is not read ahead of before it asks. */
const pipelinedWindow = 4;
/** What any sequential reader is read ahead of at most: who stops within a large file has cost no more than that. */
const windowOfAll = 6;
/** Who has read far goes on: it is read ahead of by such a share of what it has read. */
const shareAhead = 1 / 8;

/** Spans to ask for. */
export interface Stretch {
  readonly from: number;
  readonly spans: number;
}

/**
 * Finds sequential readers of one layer among its misses and says how far to read ahead of each: 1, 2, 4 … spans, and in
 * the end an eighth of what it has read. A layer may have several readers at once; the least recent are forgotten.
 */
export class SequenceDetector {
  readonly #windowMax: number;
  readonly #tails: Tail[] = [];

  constructor(windowMax: number) {
    this.#windowMax = windowMax;
  }

  /** A reader missed a span that nobody fetches: how many spans to fetch from there on, itself included. */
  missed(span: number): number {
    // What was asked for on a pipelined reader's behalf may not be on its way yet when it gets there.
    const index = this.#tails.findIndex(
      ({ position, next, window }) =>
        span === next || (window >= pipelinedWindow && position < span && span < next),
    );
    const tail = this.#tails.splice(index, index < 0 ? 0 : 1)[0] ?? {
      start: span,
      position: span,
      next: span,
      window: 0.5,
    };
    tail.position = span;
    tail.window = Math.min(tail.window * 2, this.#windowOf(tail));
    tail.next = Math.max(tail.next, span + tail.window);
    this.#tails.unshift(tail);
    this.#tails.length = Math.min(this.#tails.length, tailsMax);
    return tail.window;
  }

  /** What a miss led to: the request may have been cut short by what was there already, or by size. */
  requested(span: number, run: SpanRun): void {
    const tail = this.#tails.find(({ position }) => position === span);
    if (tail !== undefined) tail.next = run.last + 1;
  }

  /**
   * A reader waits for a span that is on its way: the next stretch to ask for, so that something always is. `undefined` when
   * enough is, or the reader is not (known to be) sequential.
   */
  reached(span: number): Stretch | undefined {
    const tail = this.#tails.find(({ position, next }) => position <= span && span < next);
    if (tail === undefined) return undefined;
    tail.position = span;
    if (tail.window < pipelinedWindow || tail.next - span > tail.window / 2) return undefined;
    tail.window = Math.min(tail.window * 2, this.#windowOf(tail));
    const from = tail.next;
    tail.next = span + tail.window;
    return from < tail.next ? { from, spans: tail.next - from } : undefined;
  }

  #windowOf({ start, position }: Tail): number {
    const earned = Math.floor((position - start) * shareAhead);
    return Math.min(this.#windowMax, Math.max(windowOfAll, earned));
  }
}
