import type { Descriptor } from "../registry/descriptor.ts";
import type { BlobPlace } from "./layer-blob.ts";
import type { IndexedLayer } from "./types.ts";

/**
 * A port: who wants the contents of layers that are indexed anyhow. The index knows nothing of a cache. Neither method
 * throws: that contents could not be kept is no reason not to index.
 */
export interface LayerKeeper {
  /** Where the blob of a layer goes that is about to be read; `undefined`: it is not wanted, or there is no room. */
  place(layer: Descriptor): Promise<BlobPlace | undefined>;
  /** Takes over the blob of a layer whose digest was verified. What is still at the place afterwards is removed. */
  keep(layer: IndexedLayer, spanPath: string, place: BlobPlace): Promise<void>;
}
