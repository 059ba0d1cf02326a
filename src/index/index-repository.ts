import { blobSource, provedBlobSource, type Repository, type ResolvedImage } from "../registry/repository.ts";
import { indexLayerInChild } from "./child.ts";
import { type BuiltImageIndex, buildImageIndex, type LayerProgress } from "./image-index.ts";
import type { LayerKeeper } from "./layer-keeper.ts";
import type { LayerProofs } from "./layer-proofs.ts";
import type { IndexLimits } from "./limits.ts";
import { mergeImageInChild } from "./merge-child.ts";
import type { IndexStore } from "./store.ts";

/**
 * Indexes an image of a repository into a store, with everything that reads the image's bytes in child processes and
 * within the limits. Cheap when it is there.
 *
 * @throws RegistryError, IndexError
 */
export async function indexRepository(options: {
  readonly repository: Repository;
  readonly resolved: ResolvedImage;
  readonly store: IndexStore;
  /** For files in the making, best on the store's file system. */
  readonly scratchDir: string;
  readonly limits: IndexLimits;
  /** Needed where the store is not one user's own: see {@link LayerProofs}. */
  readonly proofs?: LayerProofs | undefined;
  /** Takes the contents of the layers that are read. */
  readonly keeper?: LayerKeeper | undefined;
  readonly onProgress: (progress: LayerProgress) => void;
  readonly signal: AbortSignal;
}): Promise<BuiltImageIndex> {
  const { repository, resolved, store, scratchDir, limits, proofs, keeper, onProgress, signal } = options;
  const { registry, repository: path } = repository.reference;
  return await buildImageIndex({
    repository: `${registry}/${path}`,
    resolved,
    source: proofs === undefined ? blobSource(repository) : provedBlobSource(repository),
    store,
    scratchDir,
    limits,
    indexLayer: (layer, bytes, out, inner) => indexLayerInChild(layer, bytes, out, limits, inner),
    mergeImage: (request, inner) => mergeImageInChild(request, inner, { limits }),
    proofs,
    keeper,
    onProgress,
    signal,
  });
}
