import { type Trace, traceLimits } from "../index/trace.ts";
import { logger } from "../std/log.ts";
import { waitFor } from "../std/wait.ts";
import type { Fetcher } from "./fetcher.ts";
import { inLanes } from "./lanes.ts";
import type { LayerFetch } from "./layer-fetch.ts";
import type { FetchLimits } from "./limits.ts";
import { runRange, type SpanRun } from "./span-run.ts";

interface Wanted {
  readonly layer: LayerFetch;
  readonly span: number;
}

/** Unread bytes between two wanted spans that are fetched with them rather than asking twice, in all as a share. */
const gapBytesMax = 256 * 1024;
const gapShareMax = 0.1;

/**
 * Fetches what earlier starts of a program read, in their order, before the program asks. Readers go first: they have
 * connections of their own, and whoever misses a span that is on its way joins its request.
 */
export class TraceReplay {
  readonly #fetcher: Fetcher;
  readonly #limits: FetchLimits;
  readonly #queue: Wanted[];
  readonly #wanted = new Map<LayerFetch, Set<number>>();
  readonly #streams = new Set<LayerFetch>();
  #gapBytesLeft: number;
  #next = 0;
  #stopped = false;

  constructor(fetcher: Fetcher, layers: readonly LayerFetch[], trace: Trace, limits: FetchLimits) {
    this.#fetcher = fetcher;
    this.#limits = limits;
    const spans = plan(layers, trace);
    this.#queue = spans.queue;
    this.#gapBytesLeft = spans.bytes * gapShareMax;
    for (const { layer, span } of this.#queue) {
      const wanted = this.#wanted.get(layer) ?? new Set();
      this.#wanted.set(layer, wanted.add(span));
    }
  }

  /**
   * Resolves when all is fetched or asked for by others, or the signal fires. Never throws: who needs what failed asks for
   * it and is told.
   */
  run(signal: AbortSignal): Promise<void> {
    return inLanes(this.#limits.traceConnections, () => this.#lane(signal), signal);
  }

  async #lane(signal: AbortSignal): Promise<void> {
    while (!this.#stopped) {
      const request = this.#nextRequest();
      if (request === undefined) return;
      const { error, noSpace } = await waitFor(request, signal);
      if (error === undefined && !noSpace) continue;
      this.#stopped = true;
      logger("mount").info("what earlier starts read is not fetched ahead any more", {
        reason: error?.message ?? "no space for the cache",
      });
    }
  }

  #nextRequest(): ReturnType<Fetcher["fetchRun"]> | undefined {
    for (let wanted = this.#queue[this.#next]; wanted !== undefined; wanted = this.#queue[this.#next]) {
      this.#next += 1;
      const { layer, span } = wanted;
      if (layer.complete) continue;
      if (layer.whole) {
        if (this.#streams.has(layer)) continue;
        this.#streams.add(layer);
        if (!layer.blob.isPresent(span)) return this.#fetcher.fetchWhole(layer);
      } else if (layer.fetchable(span)) {
        return this.#fetcher.fetchRun(layer, this.#grow(layer, span));
      }
    }
    return undefined;
  }

  /** The run around a wanted span: over its wanted neighbours, and over small gaps between them. */
  #grow(layer: LayerFetch, span: number): SpanRun {
    const wanted = this.#wanted.get(layer) ?? new Set();
    const lengthOf = (run: SpanRun) => {
      const { start, end } = runRange(layer.blob, run);
      return end - start;
    };
    let run: SpanRun = { first: span, last: span };
    const extend = (step: 1 | -1) => {
      for (;;) {
        const edge = step > 0 ? run.last : run.first;
        const next = this.#neighbour(layer, wanted, edge, step);
        if (next === undefined) return;
        const longer = step > 0 ? { ...run, last: next } : { ...run, first: next };
        if (lengthOf(longer) > this.#limits.rangeBytes) return;
        if (Math.abs(next - edge) > 1)
          this.#gapBytesLeft -= lengthOf({ first: Math.min(edge, next) + 1, last: Math.max(edge, next) - 1 });
        run = longer;
      }
    };
    extend(1);
    extend(-1);
    return run;
  }

  /** The next wanted span in a direction, when it and all before it may be fetched and the gap is small. */
  #neighbour(layer: LayerFetch, wanted: ReadonlySet<number>, edge: number, step: 1 | -1): number | undefined {
    let gapBytes = 0;
    for (let next = edge + step; next >= 0 && next < layer.spanCount; next += step) {
      if (!layer.fetchable(next)) return undefined;
      if (wanted.has(next)) return next;
      gapBytes += layer.blob.span(next).compLength;
      if (gapBytes > gapBytesMax || gapBytes > this.#gapBytesLeft) return undefined;
    }
    return undefined;
  }
}

/** The missing spans that a trace names, in its order, and their compressed bytes. What is not of these layers is left out. */
function plan(layers: readonly LayerFetch[], trace: Trace): { queue: Wanted[]; bytes: number } {
  const byDigest = new Map(layers.map((layer) => [layer.descriptor.digest, layer]));
  const planned = new Map<LayerFetch, Set<number>>();
  const queue: Wanted[] = [];
  let bytes = 0;
  for (const { layer: digest, tarOffset, tarLength } of trace.ranges) {
    const layer = byDigest.get(digest);
    if (layer === undefined || layer.complete) continue;
    const seen = planned.get(layer) ?? new Set();
    planned.set(layer, seen);
    for (let span = spanAt(layer, tarOffset); span < layer.spanCount; span += 1) {
      const { tarOffset: begin, compLength } = layer.blob.span(span);
      if (begin >= tarOffset + tarLength) break;
      if (seen.has(span) || layer.blob.isPresent(span)) continue;
      bytes += compLength;
      // The places are the trace's, the lengths are the index's: a trace that lies is bounded by what it costs here.
      if (bytes > traceLimits.compressedBytes && queue.length > 0) return { queue, bytes };
      seen.add(span);
      queue.push({ layer, span });
    }
  }
  return { queue, bytes };
}

/** The span that holds a byte of the tar stream; the span count when it is beyond the last. */
function spanAt(layer: LayerFetch, tarOffset: number): number {
  let low = 0;
  let high = layer.spanCount;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const { tarOffset: begin, tarLength } = layer.blob.span(middle);
    if (begin + tarLength <= tarOffset) low = middle + 1;
    else high = middle;
  }
  return low;
}
