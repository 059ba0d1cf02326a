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
  /**
   * Uncompressed bytes between two places where a reader can begin: a span is fetched and inflated as a whole, in the
   * worker's memory, one on each core. Compressors begin a block at least every 4 MiB.
   */
  readonly spanBytesMax: number;
  /** Seconds of CPU time that indexing one layer may take. */
  readonly layerCpuSecondsMax: number;
  /** Memory of the process that indexes a layer. Honest layers take about 70 MiB, zstd with large windows 128 MiB more. */
  readonly layerMemoryBytesMax: number;
  /** What a worker holds in memory of all layers: 24 bytes for a run of file data, 144 for a span. */
  readonly imageTableBytesMax: number;
  /** Directories of the merged tree that exist by being named in paths only: one path can name 2,000. */
  readonly impliedDirectoriesMax: number;
  /** Inodes made while the layers are merged, replaced ones included. */
  readonly inodesMax: number;
  /** Memory of the process that merges the layers; a million files take 500 MB. */
  readonly mergeMemoryBytesMax: number;
  /** Seconds of CPU time that merging the layers may take: a million files take some ten. */
  readonly mergeCpuSecondsMax: number;
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
  spanBytesMax: 64 * mebi,
  layerCpuSecondsMax: 3600,
  layerMemoryBytesMax: 512 * mebi,
  imageTableBytesMax: 512 * mebi,
  impliedDirectoriesMax: 500_000,
  inodesMax: 8 * mebi,
  mergeMemoryBytesMax: 2 * gibi,
  mergeCpuSecondsMax: 1800,
};

/** Limits that only memory and time stand behind: those of Linux and of EROFS cannot be raised. */
export const settableLimits = (Object.keys(defaultIndexLimits) as (keyof IndexLimits)[]).filter(
  (name) => !["pathBytesMax", "nameBytesMax", "xattrValueBytesMax", "xattrBytesPerEntryMax"].includes(name),
);

/** What the formats and the readers of an index can take: a limit cannot be set higher. */
export const limitCeilings: IndexLimits = {
  ...(Object.fromEntries(
    Object.keys(defaultIndexLimits).map((name) => [name, Number.MAX_SAFE_INTEGER]),
  ) as unknown as IndexLimits),
  extentsMax: 2 ** 32 - 1,
  tarBytesMax: 2 ** 50,
  blobBytesMax: 2 ** 43,
  spanBytesMax: gibi,
  inodesMax: 2 ** 31,
};

/** A limit's name as it stands in a configuration: `tar_bytes_max`. */
export function limitName(name: keyof IndexLimits): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** @throws {IndexError} `limit_exceeded`, naming the limit, when `value` is above it. */
export function checkLimit(
  limits: IndexLimits,
  name: keyof IndexLimits,
  value: number,
  what: () => string,
): void {
  if (value > limits[name]) throw limitExceeded(limits, name, `${what()}: ${value}`);
}

/** The error of a limit: what was too much, the limit's name and value, and how to allow more. */
export function limitExceeded(limits: IndexLimits, name: keyof IndexLimits, what: string): IndexError {
  const shown = limitName(name);
  const settable = `; if it is right, allow more: ${shown} under [index.limits] of the configuration, or --limit ${shown}=…`;
  return new IndexError("limit_exceeded", `${what} is more than the limit ${shown} of ${limits[name]}`, {
    next: `Check where this image comes from${settableLimits.includes(name) ? settable : ": Linux could not show it"}.`,
  });
}
