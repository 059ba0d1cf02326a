import { CodedError, errnoOf, messageOf } from "../std/error.ts";

/**
 * - `bad_tar` the layer's tar stream breaks its format, or names a place outside of the image
 * - `bad_layer` the compressed stream is broken, or its size is not the one that the manifest says
 * - `unsupported_compression` the layer is compressed by something that is neither gzip nor zstd
 * - `limit_exceeded` the layer asks for more than the caps of `limits.ts` allow
 * - `digest_mismatch` the bytes are not the ones that the manifest names
 * - `corrupt_index` a file of the index is not the one that was written
 * - `not_found` the index holds no such image or layer
 * - `child_failed` the indexing process died without an answer
 * - `cancelled` the caller's signal fired
 * - `no_space` the disk (or the quota) is full
 */
export const indexErrorCodes = [
  "bad_tar",
  "bad_layer",
  "unsupported_compression",
  "limit_exceeded",
  "digest_mismatch",
  "corrupt_index",
  "not_found",
  "child_failed",
  "cancelled",
  "no_space",
] as const;

export type IndexErrorCode = (typeof indexErrorCodes)[number];

/** An image or a layer that cannot be indexed, or an index that cannot be used. */
export class IndexError extends CodedError<IndexErrorCode> {
  override readonly name = "IndexError";
}

/** The {@link IndexError} for a failed write to `path`; an error that is one already is returned as it is. */
export function writeError(path: string, thrown: unknown): unknown {
  if (thrown instanceof IndexError) return thrown;
  const errno = errnoOf(thrown);
  if (errno !== "ENOSPC" && errno !== "EDQUOT") return thrown;
  return new IndexError("no_space", `no space left to write ${path}: ${messageOf(thrown)}`, {
    cause: thrown,
    next: "Free space on the disk that holds the index, or move the state directory.",
  });
}
