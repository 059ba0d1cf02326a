import { IndexError } from "./error.ts";

/**
 * What one layer may ask of us. A layer is hostile until shown otherwise: each cap bounds memory, disk or time that a
 * small download could otherwise claim.
 */
export interface IndexLimits {
  /** Entries of a layer's tar, those that are left out included. */
  readonly entriesMax: number;
  /** Bytes of a whole path and of a link's target (Linux: PATH_MAX). */
  readonly pathBytesMax: number;
  /** Bytes of one part of a path (Linux: NAME_MAX). */
  readonly nameBytesMax: number;
  /** Bytes of one extended attribute's value: EROFS holds its length in 16 bits. */
  readonly xattrValueBytesMax: number;
  /** Names and values of all extended attributes of one entry: EROFS counts them in words of 4 bytes, in 16 bits. */
  readonly xattrBytesPerEntryMax: number;
  /** Bytes of one pax header. */
  readonly paxBytesMax: number;
  /** Data segments of one sparse file. */
  readonly sparseSegmentsMax: number;
  /** Runs of file data in a layer: one per regular file, more for sparse ones. */
  readonly extentsMax: number;
  /** Bytes of the table of contents: what merging the layers has to read, and mostly to hold. */
  readonly tocBytesMax: number;
  /** Uncompressed bytes of a layer. */
  readonly tarBytesMax: number;
  /** Uncompressed bytes per compressed byte, enforced once a layer inflated to more than `ratioFreeBytes`. */
  readonly ratioMax: number;
  readonly ratioFreeBytes: number;
  /** Bytes of the aligned blob, holes of sparse files included. */
  readonly blobBytesMax: number;
  /** Uncompressed bytes between two places where a reader can begin: a span is fetched and inflated as a whole. */
  readonly spanBytesMax: number;
}

const mebi = 1024 ** 2;
const gibi = 1024 ** 3;

export const defaultIndexLimits: IndexLimits = {
  entriesMax: 4 * mebi,
  pathBytesMax: 4096,
  nameBytesMax: 255,
  xattrValueBytesMax: 65535,
  xattrBytesPerEntryMax: 192 * 1024,
  paxBytesMax: mebi,
  sparseSegmentsMax: mebi,
  extentsMax: 4 * mebi,
  tocBytesMax: gibi,
  tarBytesMax: 256 * gibi,
  ratioMax: 1100,
  ratioFreeBytes: gibi,
  blobBytesMax: 4096 * gibi,
  spanBytesMax: gibi,
};

/** @throws {IndexError} `limit_exceeded`, naming the limit, when `value` is above it. */
export function checkLimit(
  limits: IndexLimits,
  name: keyof IndexLimits,
  value: number,
  what: () => string,
): void {
  const limit = limits[name];
  if (value <= limit) return;
  throw new IndexError("limit_exceeded", `${what()}: ${value} is more than the limit ${name} of ${limit}`, {
    next: "Check where this image comes from; it asks for more than images do.",
  });
}
