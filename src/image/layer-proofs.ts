import type { LayerProofs } from "../index/layer-proofs.ts";
import type { Repository } from "../registry/repository.ts";
import type { LayerStore } from "./layer-store.ts";

/**
 * What a build may take from the index store in place of a layer's bytes. A registry's word stands for bytes that came from
 * it before, whoever asked for them then: it, and it alone, answers for what it lets whom have. Another registry that names
 * the digest may be anybody's, so the layer is read from there.
 *
 * Nothing looks at it again when an image runs: workers are given images by their rows alone, rows come of builds alone, and
 * a row names its index by hash. So a worker's cache shows, and its status tells of, layers that a build has proved.
 */
export function layerProofs(layers: LayerStore, repository: Repository): LayerProofs {
  const { registry } = repository.reference;
  return {
    recall: (digest) => layers.recall(digest, registry),
    repositoryHas: (layer, signal) => repository.hasBlob(layer, signal),
    remember: (layer, mediaType) => layers.remember(layer, mediaType, registry),
  };
}
