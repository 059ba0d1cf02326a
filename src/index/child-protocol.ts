import { z } from "zod";
import { isDigest } from "../reference/digest.ts";
import { indexErrorCodes } from "./error.ts";
import type { BlobPlace } from "./layer-blob.ts";
import type { LayerToIndex } from "./layer-index.ts";
import type { IndexLimits } from "./limits.ts";
import type { IndexedLayer } from "./types.ts";

/** What the indexing process is asked, as JSON in its only argument. The layer's bytes come by standard input. */
export interface ChildRequest {
  readonly layer: LayerToIndex;
  /** Where it writes `span` and `toc`. */
  readonly directory: string;
  /** Where it writes the aligned blob, when that is wanted. */
  readonly blob?: BlobPlace | undefined;
  readonly limits: IndexLimits;
}

/** The line that it prints. */
export type ChildAnswer =
  | { readonly layer: IndexedLayer /** Why there is no blob. */; readonly blobProblem?: string | undefined }
  | { readonly error: { readonly code: string; readonly message: string; readonly next?: string } };

const bytes = z.number().int().nonnegative();

export const childAnswer = z.union([
  z.object({
    layer: z.object({
      digest: z.string(),
      mediaType: z.string(),
      sizeBytes: bytes,
      tarSizeBytes: bytes,
      blobSizeBytes: bytes,
      entries: bytes,
      spanSha256: z.string().regex(/^[0-9a-f]{64}$/),
      spanSizeBytes: bytes,
      tocDigest: z.string().refine(isDigest).optional(),
    }),
    blobProblem: z.string().optional(),
  }),
  z.object({
    error: z.object({ code: z.enum(indexErrorCodes), message: z.string(), next: z.string().optional() }),
  }),
]);
