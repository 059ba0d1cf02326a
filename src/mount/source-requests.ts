import type { BlobSource, ReadOptions } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { MountError } from "./error.ts";
import type { FetchLimits } from "./limits.ts";
import { UserSources } from "./user-sources.ts";

/**
 * The requests of one mount to its sources: counted, each with a deadline, all ended by {@link close}. A source that
 * ignores its signal is left behind: the request counts as ended when the deadline passes.
 */
export class SourceRequests {
  readonly #limits: FetchLimits;
  readonly #running = new Set<AbortController>();
  readonly #sources: UserSources;
  #closed: MountError | undefined;
  #bytes = 0;
  #requests = 0;

  constructor(source: BlobSource, limits: FetchLimits) {
    this.#sources = new UserSources(source);
    this.#limits = limits;
  }

  /** From the next request on, a user's bytes come from another source than before; who had none is a new user. */
  replaceSource(source: BlobSource, before?: BlobSource): void {
    this.#sources.put(source, before);
  }

  /** A user's source serves before the others'. */
  leadSource(source: BlobSource): void {
    this.#sources.lead(source);
  }

  /** A user has left: the others' sources serve. */
  withdrawSource(source: BlobSource): void {
    this.#sources.withdraw(source);
  }

  /** Resolves when some user's source serves; `undefined`: one does. */
  get supplied(): Promise<void> | undefined {
    return this.#sources.supplied;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#requests;
  }

  /** Bytes `start` to `end` (exclusive) of a layer, exactly so many. What readers have waited already counts. */
  async read(
    layer: Descriptor,
    start: number,
    end: number,
    options: ReadOptions & { readonly waitedMs?: number } = {},
  ): Promise<Uint8Array> {
    this.#requests += 1;
    const what = `reading bytes ${start} to ${end} of layer ${layer.digest}`;
    // A span that is larger than a request should be has as much more time.
    const patience = Math.max(1, Math.ceil((end - start) / this.#limits.rangeBytes));
    const { waitedMs = 0, ...how } = options;
    const bytes = await this.#within(
      what,
      layer,
      patience,
      (signal) => this.#sources.ask((source) => source.read(layer, start, end, signal, how)),
      waitedMs,
    );
    this.#bytes += bytes.length;
    if (bytes.length === end - start) return bytes;
    throw new MountError("corrupt_blob", `${what}: the registry sent ${bytes.length} bytes`, {
      layer: layer.digest,
    });
  }

  /** Bytes of a layer were wrong. */
  doubt(layer: Descriptor): void {
    for (const source of this.#sources.all) source.doubt?.(layer);
  }

  /** A layer from its first byte, in order; the deadline counts anew from chunk to chunk. */
  async *stream(layer: Descriptor): AsyncGenerator<Uint8Array> {
    this.#requests += 1;
    const what = `streaming layer ${layer.digest}`;
    const ended = new AbortController();
    let at = 0;
    let from: BlobSource | undefined;
    let chunks: AsyncIterator<Uint8Array>;
    const next = (source: BlobSource): Promise<IteratorResult<Uint8Array>> => {
      if (source !== from) chunks = source.stream(layer, at, ended.signal)[Symbol.asyncIterator]();
      from = source;
      return chunks.next().catch((thrown: unknown) => {
        // It has ended: whoever asks this source again begins again.
        from = undefined;
        throw thrown;
      });
    };
    try {
      for (;;) {
        const result = await this.#within(what, layer, 1, () => this.#sources.ask(next));
        if (result.done === true) return;
        at += result.value.length;
        this.#bytes += result.value.length;
        yield result.value;
      }
    } finally {
      ended.abort(new MountError("cancelled", `${what}: no longer needed`, { layer: layer.digest }));
    }
  }

  /** Ends what runs with `reason`; later requests fail with it. */
  close(reason: MountError): void {
    this.#closed ??= reason;
    for (const request of this.#running) request.abort(reason);
  }

  async #within<T>(
    what: string,
    layer: Descriptor,
    patience: number,
    call: (signal: AbortSignal) => Promise<T>,
    waitedMs = 0,
  ): Promise<T> {
    if (this.#closed !== undefined) throw this.#closed;
    const deadlineMs = this.#limits.deadlineMs * patience;
    const leftMs = deadlineMs - waitedMs;
    if (leftMs <= 0) throw this.#tooLate(what, layer, deadlineMs);
    const request = new AbortController();
    this.#running.add(request);
    const timer = setTimeout(() => request.abort(this.#tooLate(what, layer, deadlineMs)), leftMs);
    const aborted = new Promise<never>((_, reject) => {
      request.signal.addEventListener("abort", () => reject(request.signal.reason), { once: true });
    });
    try {
      return await Promise.race([call(request.signal), aborted]);
    } catch (thrown) {
      throw request.signal.aborted ? request.signal.reason : thrown;
    } finally {
      clearTimeout(timer);
      this.#running.delete(request);
    }
  }

  #tooLate(what: string, layer: Descriptor, deadlineMs: number): MountError {
    return new MountError("source_failed", `${what}: no answer within ${deadlineMs} ms`, {
      layer: layer.digest,
      next: "Check the registry and the way to it; the read can be tried again.",
    });
  }
}
