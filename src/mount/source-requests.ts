import type { BlobSource, ReadOptions } from "../registry/blob-source.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { MountError } from "./error.ts";
import type { FetchLimits } from "./limits.ts";

/**
 * The requests of one mount to its source: counted, each with a deadline, all ended by {@link close}. A source that
 * ignores its signal is left behind: the request counts as ended when the deadline passes.
 */
export class SourceRequests {
  readonly #limits: FetchLimits;
  readonly #running = new Set<AbortController>();
  #source: BlobSource;
  #closed: MountError | undefined;
  #bytes = 0;
  #requests = 0;

  constructor(source: BlobSource, limits: FetchLimits) {
    this.#source = source;
    this.#limits = limits;
  }

  /** From the next request on, bytes come from another source (a rotated credential). */
  replaceSource(source: BlobSource): void {
    this.#source = source;
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
      (signal) => this.#source.read(layer, start, end, signal, how),
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
    this.#source.doubt?.(layer);
  }

  /** A layer from its first byte, in order; the deadline counts anew from chunk to chunk. */
  async *stream(layer: Descriptor): AsyncGenerator<Uint8Array> {
    this.#requests += 1;
    const what = `streaming layer ${layer.digest}`;
    const ended = new AbortController();
    const chunks = this.#source.stream(layer, 0, ended.signal)[Symbol.asyncIterator]();
    try {
      for (;;) {
        const result = await this.#within(what, layer, 1, () => chunks.next());
        if (result.done === true) return;
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
