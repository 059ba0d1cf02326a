import type { BlobSource, ReadOptions } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { waitFor } from "../std/wait.ts";

/** Where a mount's bytes come from before anybody has said so: requests wait for it, up to their own deadlines. */
export class AwaitedSource implements BlobSource {
  readonly #source = Promise.withResolvers<BlobSource>();

  /** What waits goes to this source. Only the first call counts. */
  provide(source: BlobSource): void {
    this.#source.resolve(source);
  }

  async read(
    layer: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options?: ReadOptions,
  ): Promise<Uint8Array> {
    const source = await waitFor(this.#source.promise, signal);
    return await source.read(layer, start, end, signal, options);
  }

  async *stream(layer: Descriptor, start: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const source = await waitFor(this.#source.promise, signal);
    yield* source.stream(layer, start, signal);
  }

  doubt(layer: Descriptor): void {
    void this.#source.promise.then((source) => source.doubt?.(layer));
  }

  stats() {
    return { requests: 0, bytes: 0 };
  }
}
