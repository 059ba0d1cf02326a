import type { StartTrace, TracedRange } from "../index/trace.ts";
import type { Span } from "../native/blob.ts";
import type { CachedLayer } from "./layer-cache.ts";

/** Notes of what is read of a mount's layers, from the moment they are made: which spans, in the order of first reads. */
export class StartNotes {
  readonly #layers: readonly CachedLayer[];

  /** @param layers those that are read by way of us; what EROFS reads by itself nobody sees */
  constructor(layers: readonly CachedLayer[]) {
    this.#layers = layers;
    for (const { blob } of layers) blob.beginTouches();
  }

  readSoFar(): StartTrace {
    const reads = this.#layers.flatMap(({ blob, layer }) => {
      if (blob.released) return [];
      const orders = [...blob.touches().entries()].filter(([, order]) => order > 0);
      return orders.map(([span, order]) => ({ order, range: rangeOf(layer.digest, blob.span(span)) }));
    });
    const seenLayers = this.#layers.map(({ layer }) => layer.digest);
    return { ranges: reads.sort((a, b) => a.order - b.order).map(({ range }) => range), seenLayers };
  }

  end(): void {
    for (const { blob } of this.#layers) blob.endTouches();
  }
}

function rangeOf(layer: string, span: Span): TracedRange {
  const { tarOffset, tarLength, compLength } = span;
  return { layer, tarOffset, tarLength, compressedBytes: compLength };
}
