import type { BlobSource, ReadOptions } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { waitFor } from "../std/wait.ts";
import type { MountError } from "./error.ts";

/** Where a mount's bytes come from before anybody has said so: requests wait for it, up to their own deadlines. */
export class AwaitedSource implements BlobSource {
  readonly #source = Promise.withResolvers<BlobSource>();

  constructor() {
    // Whoever waits hears of it; nobody may.
    this.#source.promise.catch(() => undefined);
  }

  /** What waits goes to this source. Only the first call of this and of {@link withdraw} counts. */
  provide(source: BlobSource): void {
    this.#source.resolve(source);
  }

  /** There will be none: what waits fails. */
  withdraw(reason: MountError): void {
    this.#source.reject(reason);
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
    void this.#source.promise.then((source) => source.doubt?.(layer)).catch(() => undefined);
  }

  stats() {
    return { requests: 0, bytes: 0 };
  }
}
