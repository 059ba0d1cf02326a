import { Turns } from "../std/turns.ts";
import { type WrittenErofs, writeErofs } from "./erofs.ts";
import { openToc } from "./layer-toc.ts";
import { defaultIndexLimits, type IndexLimits } from "./limits.ts";
import { LayerMerger } from "./merge.ts";
import type { Tree } from "./tree.ts";

/** What an image's EROFS is made from: its layers, the lowest first. */
export interface MergeRequest {
  readonly layers: readonly {
    readonly tocPath: string;
    /** Hex, of that file as it was verified: whoever can write there has had time since. */
    readonly tocSha256?: string;
    readonly blobSizeBytes: number;
  }[];
  readonly erofsPath: string;
}

export interface MergedImage extends WrittenErofs {
  /** Names of extended attributes that were left out. */
  readonly droppedXattrs: readonly string[];
}

/** Merges an image's layers and writes its EROFS image; in this process or in a child. */
export type MergeImage = (request: MergeRequest, signal: AbortSignal) => Promise<MergedImage>;

/**
 * {@link MergeImage} in this process, which lets others have a turn every few milliseconds. `eachTurn` is called between
 * turns and may throw to end the work.
 *
 * @throws IndexError as `mergeLayers`, `openToc` and `writeErofs` do; the signal's reason
 */
export async function mergeImage(
  request: MergeRequest,
  signal: AbortSignal,
  limits = defaultIndexLimits,
  eachTurn: () => void = () => {},
): Promise<MergedImage> {
  const tree = await mergeTocs(request, signal, limits, eachTurn);
  const written = await writeErofs(tree, request.layers, request.erofsPath, signal, eachTurn);
  return { ...written, droppedXattrs: [...tree.xattrs.dropped.keys()] };
}

async function mergeTocs(
  request: MergeRequest,
  signal: AbortSignal,
  limits: IndexLimits,
  eachTurn: () => void,
): Promise<Tree> {
  const merger = new LayerMerger(limits);
  const turns = new Turns();
  for (const layer of request.layers) {
    merger.startLayer();
    for (const entry of openToc(layer.tocPath, layer.tocSha256)) {
      merger.add(entry);
      if (!turns.over) continue;
      await turns.next();
      signal.throwIfAborted();
      eachTurn();
    }
    merger.endLayer();
  }
  return merger.tree;
}
