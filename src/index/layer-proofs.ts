import type { Descriptor } from "../registry/descriptor.ts";
import type { StoredLayer } from "./store.ts";

/** What is remembered of a layer that was indexed, by one who also knows where it came from. */
export interface RememberedLayer {
  /** {@link StoredLayer.factsSha256} of the index that was made then; absent: it was made before that was remembered. */
  readonly factsSha256: string | undefined;
  /** The registry of this build gave the layer before, byte by byte, compared with its digest. */
  readonly cameFromHere: boolean;
}

/**
 * A port: what a build that serves several tenants needs before it takes an index from the store in place of the layer's
 * bytes. A manifest can name any layer's digest, and the store can be written by others than us: neither the name nor what
 * stands under it proves anything.
 */
export interface LayerProofs {
  recall(digest: string): Promise<RememberedLayer | undefined>;
  /** Whether the registry itself says, to the credential of this build, that its repository has the layer. */
  repositoryHas(layer: Descriptor, signal: AbortSignal): Promise<boolean>;
  /** The layer came from this registry, byte by byte, and this is its index. */
  remember(layer: StoredLayer, mediaType: string): Promise<void>;
}
