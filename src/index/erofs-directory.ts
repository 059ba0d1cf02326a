import { erofs } from "./erofs-format.ts";
import { inodeTypes } from "./tree-inode.ts";
import { blockBytes } from "./types.ts";

/** The type numbers in directory entries, as in `readdir` of every Linux file system (`include/linux/fs_types.h`). */
const fileTypes = new Map<number, number>([
  [inodeTypes.file, 1],
  [inodeTypes.dir, 2],
  [inodeTypes.char, 3],
  [inodeTypes.block, 4],
  [inodeTypes.fifo, 5],
  [inodeTypes.symlink, 7],
]);

/** What a directory entry says beside its name. */
export interface Dirent {
  readonly number: number;
  readonly type: number;
}

/** How many of the names from `start` on go into one block. */
function namesInBlock(names: readonly string[], start: number): { end: number; bytes: number } {
  let bytes = 0;
  let end = start;
  for (; end < names.length; end += 1) {
    const more = erofs.direntBytes + (names[end]?.length ?? 0);
    if (bytes + more > blockBytes) break;
    bytes += more;
  }
  return { end, bytes };
}

/** Bytes of a directory with these names in this order: whole blocks, and what the last one needs. */
export function directorySize(names: readonly string[]): number {
  let size = 0;
  for (let start = 0; start < names.length; ) {
    const { end, bytes } = namesInBlock(names, start);
    size += end === names.length ? bytes : blockBytes;
    start = end;
  }
  return size;
}

/**
 * Writes one block of a directory at `into[at …]`, which must be zero: first its entries (number, offset of the name,
 * type), then the names (`erofs.rst`, "Directories").
 *
 * @returns the first name that did not fit
 */
export function writeDirectoryBlock(
  names: readonly string[],
  start: number,
  lookUp: (name: string) => Dirent,
  into: Buffer,
  at: number,
): number {
  const { end } = namesInBlock(names, start);
  let nameOffset = (end - start) * erofs.direntBytes;
  let position = at;
  for (let index = start; index < end; index += 1) {
    const name = names[index] ?? "";
    const { number, type } = lookUp(name);
    into.writeUInt32LE(number >>> 0, position);
    into.writeUInt16LE(nameOffset, position + 8);
    into[position + 10] = fileTypes.get(type) ?? 0;
    into.write(name, at + nameOffset, "latin1");
    nameOffset += name.length;
    position += erofs.direntBytes;
  }
  return end;
}

/** The first name of a directory's last block. */
export function lastBlockStart(names: readonly string[]): number {
  let start = 0;
  for (let { end } = namesInBlock(names, 0); end < names.length; end = namesInBlock(names, end).end)
    start = end;
  return start;
}
