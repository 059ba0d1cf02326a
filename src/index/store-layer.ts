import { stat } from "node:fs/promises";
import { z } from "zod";
import { isDigest } from "../reference/digest.ts";
import { IndexError } from "./error.ts";
import { openToc } from "./layer-toc.ts";
import { readSpanHeader } from "./span-file.ts";

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const factsSchema = z.strictObject({
  version: z.literal(1),
  digest: z.string().refine(isDigest),
  /** Compressed bytes. */
  sizeBytes: count,
  tarSizeBytes: count,
  blobSizeBytes: count,
  entries: count,
  spanSha256: sha256,
  spanSizeBytes: count,
  tocSha256: sha256,
  /** See {@link LayerName}. */
  tocDigest: z.string().refine(isDigest).optional(),
});

/** What the store knows of a layer; kept beside its files as `layer.json`. */
export type LayerFacts = z.infer<typeof factsSchema>;

/**
 * A layer's index by what it was made from: the layer's bytes, compared with its digest; or a table of contents that the
 * layer brings, for which a manifest vouches. Whoever can push a manifest can name any table for any layer's digest, so
 * an index made from one is shared only with those whose manifest names the same.
 */
export interface LayerName {
  readonly digest: string;
  readonly tocDigest?: string | undefined;
}

/** The files of a layer's index. */
export interface LayerPaths {
  readonly spanPath: string;
  readonly tocPath: string;
}

/** Reads `layer.json`; `undefined` when it is none. */
export function decodeLayerFacts(text: string): LayerFacts | undefined {
  try {
    return factsSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/**
 * Reads from a layer's fresh index what `layer.json` says of it.
 *
 * @throws IndexError `digest_mismatch` when the index is of another layer, `corrupt_index` when it is none
 */
export async function readLayerFacts(
  { digest, tocDigest }: LayerName,
  paths: LayerPaths,
  hashes: { readonly span: string; readonly toc: string },
): Promise<LayerFacts> {
  const header = readSpanHeader(paths.spanPath);
  const found = header.digest;
  if (found !== digest) {
    throw new IndexError(
      "digest_mismatch",
      `the layer ${digest} was indexed from bytes with the digest ${found}`,
      {
        next: "Build the image again.",
      },
    );
  }
  return {
    version: 1,
    digest,
    sizeBytes: header.compressedBytes,
    tarSizeBytes: header.tarBytes,
    blobSizeBytes: header.blobBytes,
    entries: openToc(paths.tocPath).entries,
    spanSha256: hashes.span,
    spanSizeBytes: (await stat(paths.spanPath)).size,
    tocSha256: hashes.toc,
    ...(tocDigest === undefined ? {} : { tocDigest }),
  };
}
