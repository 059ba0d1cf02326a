import type { SpanTable } from "./span-run.ts";

/** The compressed bytes of one span, cut out of a stream of the whole layer. */
export interface CutSpan {
  readonly span: number;
  readonly bytes: Uint8Array;
}

/**
 * Cuts the spans that are wanted out of a layer that comes as a whole, from its first byte, in chunks of any size.
 * Holds no more than one span and one chunk.
 */
export class SpanCutter {
  readonly #table: SpanTable;
  readonly #wanted: (span: number) => boolean;
  #next = 0;
  /** Offset in the layer of the first byte that is held. */
  #heldFrom = 0;
  #held: Uint8Array[] = [];
  #heldBytes = 0;

  constructor(table: SpanTable, wanted: (span: number) => boolean) {
    this.#table = table;
    this.#wanted = wanted;
  }

  /** Takes the next chunk and gives the wanted spans that are whole now, in order. */
  *push(chunk: Uint8Array): Generator<CutSpan> {
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    while (this.#next < this.#table.spanCount) {
      const { compOffset, compLength } = this.#table.span(this.#next);
      if (!this.#wanted(this.#next)) {
        this.#next += 1;
        continue;
      }
      this.#dropBefore(compOffset);
      if (this.#heldFrom + this.#heldBytes < compOffset + compLength) return;
      const bytes = this.#take(compOffset, compLength);
      yield { span: this.#next, bytes };
      this.#next += 1;
    }
    this.#dropBefore(Number.POSITIVE_INFINITY);
  }

  #dropBefore(offset: number): void {
    while (this.#held[0] !== undefined && this.#heldFrom + this.#held[0].length <= offset) {
      this.#heldFrom += this.#held[0].length;
      this.#heldBytes -= this.#held[0].length;
      this.#held.shift();
    }
  }

  #take(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    let chunkFrom = this.#heldFrom;
    for (const chunk of this.#held) {
      const from = Math.max(offset, chunkFrom);
      const to = Math.min(offset + length, chunkFrom + chunk.length);
      if (from < to) bytes.set(chunk.subarray(from - chunkFrom, to - chunkFrom), from - offset);
      chunkFrom += chunk.length;
    }
    return bytes;
  }
}
