import { alignUp, erofs } from "./erofs-format.ts";
import { writeXattrBody, xattrBodyBytes, xattrCount } from "./erofs-xattr.ts";
import type { Tree } from "./tree.ts";
import { inodeTypes } from "./tree-inode.ts";
import { blockBytes } from "./types.ts";

/** What an inode needs to be written beyond what the tree says. */
export interface InodePlace {
  /** Bytes of the names or of the link's target; of a file, its size. */
  readonly sizeBytes: number;
  readonly layout: number;
  /** The block where the whole blocks of its data begin. */
  readonly firstBlock: number;
  readonly linkCount: number;
  /** The number that `stat` shows where 64 bits do not fit. */
  readonly shortNumber: number;
}

/**
 * Writes an extended inode, its attributes and, for a file, its chunk index at `into[at …]`, which must be zero.
 *
 * @returns the bytes that inode and attributes take: inline data begin there
 */
export function writeInode(tree: Tree, inode: number, place: InodePlace, into: Buffer, at: number): number {
  const xattrs = tree.xattrs.get(inode);
  const bodyBytes = xattrBodyBytes(xattrs);
  const seconds = tree.mtimeSeconds[inode] ?? 0;
  into.writeUInt16LE(1 | (place.layout << 1), at);
  into.writeUInt16LE(xattrCount(bodyBytes), at + 2);
  into.writeUInt16LE(tree.mode[inode] ?? 0, at + 4);
  writeInt64(into, place.sizeBytes, at + 8);
  into.writeUInt32LE(summary(tree, inode, place), at + 16);
  into.writeUInt32LE(place.shortNumber, at + 20);
  into.writeUInt32LE(tree.uid[inode] ?? 0, at + 24);
  into.writeUInt32LE(tree.gid[inode] ?? 0, at + 28);
  writeInt64(into, seconds, at + 32);
  into.writeUInt32LE(tree.mtimeNanos[inode] ?? 0, at + 40);
  into.writeUInt32LE(place.linkCount, at + 44);
  if (xattrs !== undefined) writeXattrBody(xattrs, into, at + erofs.inodeBytes);
  const head = erofs.inodeBytes + bodyBytes;
  if (place.layout === erofs.layouts.chunks) {
    const index = at + alignUp(head, erofs.chunkIndexBytes);
    into.writeUInt16LE((tree.layer[inode] ?? 0) + 1, index + 2);
    into.writeUInt32LE((tree.place[inode] ?? 0) / blockBytes, index + 4);
  }
  return head;
}

/** The field whose meaning depends on the inode: chunk format, first block, or device number. */
function summary(tree: Tree, inode: number, place: InodePlace): number {
  const type = tree.typeOf(inode);
  if (type === inodeTypes.char || type === inodeTypes.block) return tree.place[inode] ?? 0;
  if (place.layout === erofs.layouts.chunks) return erofs.chunkIndexes | chunkBits(place.sizeBytes);
  return place.firstBlock;
}

/** A chunk of `4096 << bits` bytes holds the whole file. */
function chunkBits(sizeBytes: number): number {
  let bits = 0;
  for (let bytes = blockBytes; bytes < sizeBytes; bytes *= 2) bits += 1;
  return bits;
}

/** A whole number in two's complement, exact up to 2^53. */
function writeInt64(into: Buffer, value: number, at: number): void {
  const high = Math.floor(value / 0x1_0000_0000);
  into.writeUInt32LE(value - high * 0x1_0000_0000, at);
  into.writeInt32LE(high, at + 4);
}
