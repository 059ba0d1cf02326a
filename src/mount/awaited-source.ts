import type { BlobSource, ReadOptions } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { waitFor } from "../std/wait.ts";
import type { MountError } from "./error.ts";

/** What waited for a source is to ask another user's. */
export class GivenWay extends Error {}

/** Where a user's bytes come from before anybody has said so: requests wait for it, up to their own deadlines. */
export class AwaitedSource implements BlobSource {
  readonly #source = Promise.withResolvers<BlobSource>();
  #another = Promise.withResolvers<never>();
  #state: "pending" | "provided" | "withdrawn" = "pending";

  constructor() {
    // Whoever waits hears of it; nobody may.
    this.#source.promise.catch(() => undefined);
    this.#another.promise.catch(() => undefined);
  }

  get state(): "pending" | "provided" | "withdrawn" {
    return this.#state;
  }

  /** Resolves when it is known whether there will be one. Never rejects. */
  get settled(): Promise<void> {
    return this.#source.promise.then(
      () => undefined,
      () => undefined,
    );
  }

  /** What waits goes to this source. Only the first call of this and of {@link withdraw} counts. */
  provide(source: BlobSource): void {
    if (this.#state === "pending") this.#state = "provided";
    this.#source.resolve(source);
  }

  /** There will be none: what waits fails. */
  withdraw(reason: MountError): void {
    if (this.#state === "pending") this.#state = "withdrawn";
    this.#source.reject(reason);
  }

  /** Whatever waits now fails with {@link GivenWay}; what comes later waits as before. */
  giveWay(): void {
    const { reject } = this.#another;
    this.#another = Promise.withResolvers();
    this.#another.promise.catch(() => undefined);
    reject(new GivenWay());
  }

  async read(
    layer: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options?: ReadOptions,
  ): Promise<Uint8Array> {
    const source = await this.#provided(signal);
    return await source.read(layer, start, end, signal, options);
  }

  async *stream(layer: Descriptor, start: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const source = await this.#provided(signal);
    yield* source.stream(layer, start, signal);
  }

  doubt(layer: Descriptor): void {
    void this.#source.promise.then((source) => source.doubt?.(layer)).catch(() => undefined);
  }

  stats() {
    return { requests: 0, bytes: 0 };
  }

  #provided(signal: AbortSignal): Promise<BlobSource> {
    return waitFor(Promise.race([this.#source.promise, this.#another.promise]), signal);
  }
}
