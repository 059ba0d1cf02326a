/**
 * The on-disk format of EROFS as far as we write it: little-endian, 4 KiB blocks, 64-byte inodes, files as chunks of
 * other devices. Source: Linux, `Documentation/filesystems/erofs.rst` and the layouts in `fs/erofs/erofs_fs.h`.
 */
export const erofs = {
  superblockOffset: 1024,
  magic: 0xe0f5e1e2,
  /** Superblock checksum, and inode times are modification times. */
  compatFeatures: 0x1 | 0x2,
  /** Chunk-based files, and a table of further devices. */
  incompatFeatures: 0x4 | 0x8,
  /** The device table follows the superblock; its offset is counted in slots. */
  deviceTableOffset: 1024 + 128,
  deviceSlotBytes: 128,
  /** Inodes begin at multiples of this; their number is the offset divided by it. */
  inodeSlotBytes: 32,
  inodeBytes: 64,
  chunkIndexBytes: 8,
  direntBytes: 12,
  xattrHeaderBytes: 12,
  xattrEntryBytes: 4,
  layouts: { plain: 0, inline: 2, chunks: 4 },
  chunkIndexes: 0x20,
  rootNumberMax: 0xffff,
} as const;

/** The number of blocks, or of any `unit`, that hold `bytes`. */
export function unitsOf(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit);
}

/** The next multiple of `unit` that is not below `value`. */
export function alignUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
