import { erofs } from "./erofs-format.ts";
import { blockBytes } from "./types.ts";

export interface Superblock {
  readonly rootNumber: number;
  readonly inodeCount: number;
  readonly totalBlocks: number;
  /** 16 bytes. */
  readonly uuid: Uint8Array;
  /** Blocks of each further device, in order. */
  readonly deviceBlocks: readonly number[];
}

/** Writes superblock and device table at the start of `into`, which must be zero there. The checksum comes later. */
export function writeSuperblock(superblock: Superblock, into: Buffer): void {
  const at = erofs.superblockOffset;
  into.writeUInt32LE(erofs.magic, at);
  into.writeUInt32LE(erofs.compatFeatures, at + 8);
  into[at + 12] = Math.log2(blockBytes);
  into.writeUInt16LE(superblock.rootNumber, at + 14);
  into.writeUInt32LE(superblock.inodeCount, at + 16);
  into.writeUInt32LE(superblock.totalBlocks, at + 36);
  into.set(superblock.uuid, at + 48);
  into.writeUInt32LE(erofs.incompatFeatures, at + 80);
  into.writeUInt16LE(superblock.deviceBlocks.length, at + 86);
  into.writeUInt16LE(erofs.deviceTableOffset / erofs.deviceSlotBytes, at + 88);
  for (const [index, blocks] of superblock.deviceBlocks.entries()) {
    into.writeUInt32LE(blocks, erofs.deviceTableOffset + index * erofs.deviceSlotBytes + 64);
  }
}

/** Puts the checksum into the superblock: over the rest of its block, taken with the checksum as zero. */
export function sealSuperblock(into: Buffer): void {
  const sum = crc32c(into.subarray(erofs.superblockOffset, blockBytes));
  into.writeUInt32LE(sum, erofs.superblockOffset + 4);
}

/** CRC-32C (Castagnoli) without the inversion at the end, as the kernel computes it from a seed of all ones. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return crc >>> 0;
}
