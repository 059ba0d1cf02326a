import type { LayerBlob } from "../native/blob.ts";
import type { Engine, FillResult } from "../native/engine.ts";
import { runRange, type SpanRun } from "./span-run.ts";

/**
 * Hands the spans of one request to the engine as their bytes come, so that the first readers need not wait for the last
 * byte, and inflating goes on while the link does.
 */
export class RangeFill {
  readonly #engine: Engine;
  readonly #blob: LayerBlob;
  readonly #run: SpanRun;
  readonly #start: number;
  readonly #fills: Promise<FillResult[]>[] = [];
  #ended = false;
  #into: Uint8Array | undefined;
  #received = 0;
  #next: number;

  constructor(engine: Engine, blob: LayerBlob, run: SpanRun) {
    this.#engine = engine;
    this.#blob = blob;
    this.#run = run;
    this.#start = runRange(blob, run).start;
    this.#next = run.first;
  }

  /** The first span that the engine does not have yet. */
  get next(): number {
    return this.#next;
  }

  /** So many bytes more stand in `into`, which begins with the run's first byte; a new one begins anew. */
  received(count: number, into: Uint8Array): void {
    if (this.#ended) return;
    if (into !== this.#into) this.#received = 0;
    this.#into = into;
    this.#received += count;
    this.#give(into, this.#received);
  }

  /** The request is over: what a source that was left behind still sends is nobody's. */
  end(): void {
    this.#ended = true;
  }

  /** The whole is there. What became of every span of the run, in order. */
  async finish(bytes: Uint8Array): Promise<FillResult[]> {
    this.#give(bytes, bytes.length);
    return await this.soFar();
  }

  /** What became of the spans that the engine got, when it is done with them. */
  async soFar(): Promise<FillResult[]> {
    return (await Promise.all(this.#fills)).flat();
  }

  #give(bytes: Uint8Array, received: number): void {
    let last = this.#next - 1;
    while (last < this.#run.last && this.#offset(last + 1).end <= received) last += 1;
    if (last < this.#next) return;
    const { begin } = this.#offset(this.#next);
    const filling = this.#engine.fill(
      this.#blob,
      this.#next,
      last,
      bytes.subarray(begin, this.#offset(last).end),
    );
    filling.catch(() => undefined); // told by soFar()
    this.#fills.push(filling);
    this.#next = last + 1;
  }

  /** Where a span's bytes are in the request's. */
  #offset(span: number): { begin: number; end: number } {
    const { compOffset, compLength } = this.#blob.span(span);
    return { begin: compOffset - this.#start, end: compOffset - this.#start + compLength };
  }
}
