import type { LogChunk } from "../spec.ts";

/** A part of a program's output. */
export type OutputPart = Pick<LogChunk, "stream" | "data">;

/** At the first the writer is asked to wait, at the second to go on. */
const fullBytes = 256 * 1024;
const emptyBytes = 64 * 1024;

/** A program's output on its way to one reader: a writer that waits when it is asked to keeps it small. */
export class OutputQueue implements AsyncIterable<OutputPart> {
  readonly #parts: OutputPart[] = [];
  #bytes = 0;
  #room: PromiseWithResolvers<void> | undefined;
  #ended = false;
  #wake: () => void = () => undefined;

  /** @returns absent, or what the writer is to wait for before it writes more */
  push(part: OutputPart): Promise<void> | undefined {
    if (this.#ended) return undefined;
    this.#parts.push(part);
    this.#bytes += part.data.length;
    this.#wake();
    if (this.#bytes >= fullBytes) this.#room ??= Promise.withResolvers();
    return this.#room?.promise;
  }

  /** Nothing more comes; what is in it is still read. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** Nobody reads it any more: who waits goes on, and nothing is kept. */
  drop(): void {
    this.end();
    this.#parts.length = 0;
    this.#room?.resolve();
    this.#room = undefined;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<OutputPart, void, undefined> {
    for (;;) {
      for (let part = this.#parts.shift(); part !== undefined; part = this.#parts.shift()) {
        this.#bytes -= part.data.length;
        if (this.#bytes <= emptyBytes) {
          this.#room?.resolve();
          this.#room = undefined;
        }
        yield part;
      }
      if (this.#ended) return;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
