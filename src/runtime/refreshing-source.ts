import type { BlobSource, ReadOptions } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { RegistryError } from "../registry/error.ts";
import { waitFor } from "../std/wait.ts";
import { RuntimeError } from "./error.ts";

/** Between two refreshes of one image: who is refused must not ask the scheduler at every read. */
const pauseMs = 10_000;
/** After a refresh that failed for another reason, which may be over soon: a registry, say, that cannot be reached. */
const retryMs = 500;

/**
 * A registry's blobs, by credentials that can be had anew: when the registry refuses those at hand, others are asked for
 * once, for all readers together, and the read goes on with them. When they are refused too, that is the reader's error.
 */
export class RefreshingSource implements BlobSource {
  readonly #refresh: () => Promise<BlobSource>;
  readonly #pauseMs: number;
  #current: BlobSource | undefined;
  #refreshing: Promise<BlobSource> | undefined;
  #failure: unknown;
  /** Not before this time is the scheduler asked again. */
  #pausedUntil = Number.NEGATIVE_INFINITY;
  /** Of the sources that were given up. */
  #past = { requests: 0, bytes: 0 };

  /**
   * @param first `undefined`: there are no credentials yet, the first read asks for them
   * @param refresh gives a source by the credentials as they are now, after proving that they are good for the image
   */
  constructor(
    first: BlobSource | undefined,
    refresh: () => Promise<BlobSource>,
    options: { readonly pauseMs?: number } = {},
  ) {
    this.#current = first;
    this.#refresh = refresh;
    this.#pauseMs = options.pauseMs ?? pauseMs;
  }

  async read(
    layer: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options?: ReadOptions,
  ): Promise<Uint8Array> {
    const source = this.#current ?? (await this.#next(undefined, undefined, signal));
    try {
      return await source.read(layer, start, end, signal, options);
    } catch (thrown) {
      if (!isRefusal(thrown)) throw thrown;
      const next = await this.#next(source, thrown, signal);
      return await next.read(layer, start, end, signal, options);
    }
  }

  async *stream(layer: Descriptor, start: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const source = this.#current ?? (await this.#next(undefined, undefined, signal));
    let at = start;
    try {
      for await (const chunk of source.stream(layer, start, signal)) {
        at += chunk.length;
        yield chunk;
      }
      return;
    } catch (thrown) {
      if (!isRefusal(thrown)) throw thrown;
      const next = await this.#next(source, thrown, signal);
      yield* next.stream(layer, at, signal);
    }
  }

  doubt(layer: Descriptor): void {
    this.#current?.doubt?.(layer);
  }

  stats() {
    const { requests, bytes } = this.#current?.stats() ?? { requests: 0, bytes: 0 };
    return { requests: this.#past.requests + requests, bytes: this.#past.bytes + bytes };
  }

  /** The source that follows one that was refused. Throws the refusal when there cannot be another by now. */
  async #next(refused: BlobSource | undefined, refusal: unknown, signal: AbortSignal): Promise<BlobSource> {
    if (this.#current !== undefined && this.#current !== refused) return this.#current;
    if (this.#refreshing === undefined) {
      if (performance.now() < this.#pausedUntil) throw refusal ?? this.#failure;
      this.#refreshing = this.#replace().finally(() => {
        this.#refreshing = undefined;
      });
      // Whoever waits hears of it; all may have left.
      this.#refreshing.catch(() => undefined);
    }
    return await waitFor(this.#refreshing, signal);
  }

  async #replace(): Promise<BlobSource> {
    try {
      const next = await this.#refresh();
      this.#past = this.stats();
      this.#current = next;
      this.#pausedUntil = performance.now() + this.#pauseMs;
      return next;
    } catch (thrown) {
      this.#failure = thrown;
      this.#pausedUntil =
        performance.now() + (isFinal(thrown) ? this.#pauseMs : Math.min(retryMs, this.#pauseMs));
      throw thrown;
    }
  }
}

/** The scheduler or the registry said no, which the next question would hear again. */
function isFinal(thrown: unknown): boolean {
  return isRefusal(thrown) || thrown instanceof RuntimeError;
}

function isRefusal(thrown: unknown): boolean {
  return thrown instanceof RegistryError && (thrown.code === "unauthorized" || thrown.code === "denied");
}
