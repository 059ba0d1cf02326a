import { Turns } from "../std/turns.ts";
import { directorySize } from "./erofs-directory.ts";
import { alignUp, erofs, unitsOf } from "./erofs-format.ts";
import { xattrBodyBytes } from "./erofs-xattr.ts";
import { IndexError } from "./error.ts";
import { inodeOf, type Tree } from "./tree.ts";
import { inodeTypes } from "./tree-inode.ts";
import { blockBytes } from "./types.ts";

/**
 * Where everything of an image goes: inodes one after the other from behind the device table on, then whole blocks.
 *
 * The inodes of a directory's entries stand together, in the order of their names, so that listing one with its
 * metadata reads neighbouring blocks. What belongs to an inode (attributes, chunk index, inline data) follows it and
 * crosses no block boundary, unless it is larger than a block: then it starts on one, and holds no inline data.
 */
export interface ErofsPlan {
  readonly inodeCount: number;
  /** Inodes of the tree in the order in which they are written. */
  readonly order: Uint32Array;
  /** By inode of the tree: its number in the image; 0 for one that is not reached. */
  readonly numbers: Uint32Array;
  readonly linkCounts: Uint32Array;
  readonly directories: ReadonlyMap<number, PlannedDirectory>;
  /** Bytes of each inode in the order of writing that stand in whole blocks, and the first of these blocks. */
  readonly firstBlocks: ReadonlyMap<number, number>;
  /** Where the last inode's data end. */
  readonly inodesEnd: number;
  readonly totalBlocks: number;
}

export interface PlannedDirectory {
  /** Names in the order of their bytes, `.` and `..` among them. */
  readonly names: readonly string[];
  readonly parent: number;
  readonly sizeBytes: number;
}

/** Plans an image. @throws IndexError `limit_exceeded` when the tree is larger than the format can hold */
export async function planErofs(
  tree: Tree,
  deviceCount: number,
  signal?: AbortSignal,
  eachTurn: () => void = () => {},
): Promise<ErofsPlan> {
  const planner = new Planner(tree, erofs.deviceTableOffset + deviceCount * erofs.deviceSlotBytes);
  const turns = new Turns();
  for (const _ of planner.placeAll()) {
    if (!turns.over) continue;
    await turns.next();
    signal?.throwIfAborted();
    eachTurn();
  }
  signal?.throwIfAborted();
  return planner.plan();
}

class Planner {
  readonly #tree: Tree;
  readonly #order: Uint32Array;
  readonly #numbers: Uint32Array;
  readonly #linkCounts: Uint32Array;
  readonly #directories = new Map<number, PlannedDirectory>();
  readonly #firstBlocks = new Map<number, number>();
  #count = 0;
  #cursor: number;
  #blocks = 0;

  constructor(tree: Tree, start: number) {
    this.#tree = tree;
    this.#cursor = start;
    this.#order = new Uint32Array(tree.count);
    this.#numbers = new Uint32Array(tree.count);
    this.#linkCounts = new Uint32Array(tree.count);
  }

  /** Places every inode that is reached from the root; after each directory the caller may make a pause. */
  *placeAll(): Generator<void, void, undefined> {
    const tree = this.#tree;
    this.#openDirectory(tree.root, tree.root);
    this.#place(tree.root);
    const todo = [tree.root];
    for (let directory = todo.pop(); directory !== undefined; directory = todo.pop()) {
      const below = this.#placeEntries(directory);
      for (let at = below.length - 1; at >= 0; at -= 1) todo.push(below[at] ?? 0);
      yield;
    }
  }

  plan(): ErofsPlan {
    // erofs-utils 1.5 read the attributes' header behind every inode, also when it has none: it must not be past the end.
    const inodeBlocks = unitsOf(this.#cursor + erofs.xattrHeaderBytes, blockBytes);
    for (const [inode, block] of this.#firstBlocks) this.#firstBlocks.set(inode, block + inodeBlocks);
    const totalBlocks = inodeBlocks + this.#blocks;
    const rootNumber = this.#numbers[this.#tree.root] ?? 0;
    if (rootNumber > erofs.rootNumberMax || totalBlocks > 0xffffffff || this.#cursor / 32 > 0xffffffff) {
      throw new IndexError(
        "limit_exceeded",
        "the image has more layers or files than an EROFS image can hold",
      );
    }
    return {
      inodeCount: this.#count,
      order: this.#order.subarray(0, this.#count),
      numbers: this.#numbers,
      linkCounts: this.#linkCounts,
      directories: this.#directories,
      firstBlocks: this.#firstBlocks,
      inodesEnd: this.#cursor,
      totalBlocks,
    };
  }

  /** Places the inodes of a directory's entries and returns the directories among them. */
  #placeEntries(directory: number): number[] {
    const tree = this.#tree;
    const entries = tree.entries(directory);
    const below: number[] = [];
    for (const name of this.#directories.get(directory)?.names ?? []) {
      const entry = entries.get(name);
      if (entry === undefined) continue;
      const inode = inodeOf(entry);
      if (tree.isDirectory(inode)) {
        this.#count1(directory);
        this.#openDirectory(inode, directory);
        below.push(inode);
      } else {
        this.#count1(inode);
        if (this.#numbers[inode] !== 0) continue;
      }
      this.#place(inode);
    }
    return below;
  }

  #openDirectory(directory: number, parent: number): void {
    const names = [".", "..", ...this.#tree.entries(directory).keys()].sort();
    this.#directories.set(directory, { names, parent, sizeBytes: directorySize(names) });
    this.#linkCounts[directory] = 2;
  }

  #count1(inode: number): void {
    this.#linkCounts[inode] = (this.#linkCounts[inode] ?? 0) + 1;
  }

  #place(inode: number): void {
    const head = erofs.inodeBytes + xattrBodyBytes(this.#tree.xattrs.get(inode));
    const data = this.#dataBytes(inode);
    const tail = data % blockBytes;
    const inline = isInline(head, data);
    let whole = head;
    if (inline) whole = head + tail;
    else if (this.#isChunked(inode)) whole = alignUp(head, erofs.chunkIndexBytes) + erofs.chunkIndexBytes;

    let offset = alignUp(this.#cursor, erofs.inodeSlotBytes);
    const inBlock = offset % blockBytes;
    if (inBlock + whole > blockBytes) offset += blockBytes - inBlock;
    this.#cursor = offset + whole;
    this.#numbers[inode] = offset / erofs.inodeSlotBytes;
    this.#order[this.#count] = inode;
    this.#count += 1;

    const blocks = inline ? (data - tail) / blockBytes : unitsOf(data, blockBytes);
    if (blocks === 0) return;
    this.#firstBlocks.set(inode, this.#blocks);
    this.#blocks += blocks;
  }

  /** Bytes of what the image itself holds for an inode: names, or a link's target. */
  #dataBytes(inode: number): number {
    const directory = this.#directories.get(inode);
    if (directory !== undefined) return directory.sizeBytes;
    return this.#tree.links.get(inode)?.length ?? 0;
  }

  #isChunked(inode: number): boolean {
    return this.#tree.typeOf(inode) === inodeTypes.file && (this.#tree.size[inode] ?? 0) > 0;
  }
}

/** Whether the last, incomplete block of `data` bytes stands behind its inode. */
export function isInline(headBytes: number, dataBytes: number): boolean {
  const tail = dataBytes % blockBytes;
  return tail > 0 && headBytes + tail <= blockBytes;
}
