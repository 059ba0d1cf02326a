import { rm } from "node:fs/promises";
import { type Dirent, lastBlockStart, writeDirectoryBlock } from "./erofs-directory.ts";
import { alignUp, erofs, unitsOf } from "./erofs-format.ts";
import { writeInode } from "./erofs-inode.ts";
import { FileOutput } from "./erofs-output.ts";
import { type ErofsPlan, isInline, type PlannedDirectory, planErofs } from "./erofs-plan.ts";
import { sealSuperblock, writeSuperblock } from "./erofs-superblock.ts";
import { xattrBodyBytes } from "./erofs-xattr.ts";
import { IndexError } from "./error.ts";
import { inodeOf, type Tree } from "./tree.ts";
import { inodeTypes } from "./tree-inode.ts";
import { blockBytes } from "./types.ts";

/** A device of the image: the aligned blob of one layer. */
export interface ErofsDevice {
  readonly blobSizeBytes: number;
}

export interface WrittenErofs {
  readonly sizeBytes: number;
  /** Of the whole file, in hexadecimal. */
  readonly sha256: string;
  readonly inodes: number;
}

/**
 * Writes a tree as an EROFS image of metadata only: the bytes of files are in the devices, device `n` being the blob of
 * layer `n`, counted from 0 in the tree and from 1 in the image. The same tree gives the same bytes.
 *
 * The image is written in one pass; others get a turn every few milliseconds, `eachTurn` while it is planned. On failure nothing is left at `outPath`.
 *
 * @throws IndexError `bad_layer` when a file lies outside of its blob, `limit_exceeded`, `no_space`; the signal's reason
 */
export async function writeErofs(
  tree: Tree,
  devices: readonly ErofsDevice[],
  outPath: string,
  signal?: AbortSignal,
  eachTurn: () => void = () => {},
): Promise<WrittenErofs> {
  const plan = await planErofs(tree, devices.length, signal, eachTurn);
  const output = await FileOutput.create(outPath);
  try {
    const sha256 = await new Writer(tree, devices, plan, output).write(signal);
    return { sizeBytes: plan.totalBlocks * blockBytes, sha256, inodes: plan.inodeCount };
  } catch (error) {
    await output.close();
    await rm(outPath, { force: true });
    throw error;
  }
}

class Writer {
  readonly #tree: Tree;
  readonly #devices: readonly ErofsDevice[];
  readonly #plan: ErofsPlan;
  readonly #output: FileOutput;

  constructor(tree: Tree, devices: readonly ErofsDevice[], plan: ErofsPlan, output: FileOutput) {
    this.#tree = tree;
    this.#devices = devices;
    this.#plan = plan;
    this.#output = output;
  }

  async write(signal: AbortSignal | undefined): Promise<string> {
    const output = this.#output;
    const { order, totalBlocks } = this.#plan;
    await this.#writeStart();
    let sealed = false;
    for (let at = 0; at < order.length; at += 1) {
      const inode = order[at] ?? 0;
      const shape = this.#shapeOf(inode);
      const offset = this.#numberOf(inode) * erofs.inodeSlotBytes;
      if (!sealed && offset >= blockBytes) {
        sealSuperblock(output.buffer);
        sealed = true;
      }
      let room = output.reserve(offset, shape.wholeBytes);
      if (room === undefined) {
        signal?.throwIfAborted();
        room = await output.flush(offset, shape.wholeBytes);
      }
      this.#writeInode(inode, shape, at + 1, room);
    }
    if (!sealed) sealSuperblock(output.buffer);
    await this.#writeBlocks(signal);
    return await output.finish(totalBlocks * blockBytes);
  }

  async #writeStart(): Promise<void> {
    const length = Math.max(
      blockBytes,
      erofs.deviceTableOffset + this.#devices.length * erofs.deviceSlotBytes,
    );
    if (this.#output.reserve(0, length) === undefined) await this.#output.flush(0, length);
    const plan = this.#plan;
    const superblock = {
      rootNumber: this.#numberOf(this.#tree.root),
      inodeCount: plan.inodeCount,
      totalBlocks: plan.totalBlocks,
      uuid: imageUuid(this.#tree, plan, this.#devices),
      deviceBlocks: this.#devices.map((device) => unitsOf(device.blobSizeBytes, blockBytes)),
    };
    writeSuperblock(superblock, this.#output.buffer);
  }

  #writeInode(inode: number, shape: Shape, shortNumber: number, room: number): void {
    const tree = this.#tree;
    const place = {
      sizeBytes: shape.sizeBytes,
      layout: shape.layout,
      firstBlock: this.#plan.firstBlocks.get(inode) ?? 0,
      linkCount: this.#plan.linkCounts[inode] ?? 0,
      shortNumber,
    };
    const { buffer } = this.#output;
    const head = writeInode(tree, inode, place, buffer, room);
    if (shape.layout !== erofs.layouts.inline) return;
    const directory = this.#plan.directories.get(inode);
    if (directory === undefined) buffer.write(tree.links.get(inode) ?? "", room + head, "latin1");
    else this.#writeNames(inode, directory, lastBlockStart(directory.names), room + head);
  }

  /** What stands in whole blocks: the names of larger directories, and link targets that were not put inline. */
  async #writeBlocks(signal: AbortSignal | undefined): Promise<void> {
    for (const [inode, firstBlock] of this.#plan.firstBlocks) {
      const directory = this.#plan.directories.get(inode);
      const { sizeBytes, layout } = this.#shapeOf(inode);
      const blocks =
        layout === erofs.layouts.inline ? Math.floor(sizeBytes / blockBytes) : unitsOf(sizeBytes, blockBytes);
      let next = 0;
      for (let block = 0; block < blocks; block += 1) {
        const offset = (firstBlock + block) * blockBytes;
        let room = this.#output.reserve(offset, blockBytes);
        if (room === undefined) {
          signal?.throwIfAborted();
          room = await this.#output.flush(offset, blockBytes);
        }
        if (directory !== undefined) next = this.#writeNames(inode, directory, next, room);
        else this.#output.buffer.write(this.#tree.links.get(inode) ?? "", room, "latin1");
      }
    }
  }

  #writeNames(inode: number, directory: PlannedDirectory, start: number, room: number): number {
    const tree = this.#tree;
    const entries = tree.entries(inode);
    const lookUp = (name: string): Dirent => {
      const entry = entries.get(name);
      let target = inode;
      if (entry !== undefined) target = inodeOf(entry);
      else if (name === "..") target = directory.parent;
      return { number: this.#numberOf(target), type: tree.typeOf(target) };
    };
    return writeDirectoryBlock(directory.names, start, lookUp, this.#output.buffer, room);
  }

  #shapeOf(inode: number): Shape {
    const tree = this.#tree;
    const head = erofs.inodeBytes + xattrBodyBytes(tree.xattrs.get(inode));
    const type = tree.typeOf(inode);
    if (type === inodeTypes.file) {
      const sizeBytes = tree.size[inode] ?? 0;
      if (sizeBytes === 0) return { sizeBytes, layout: erofs.layouts.plain, wholeBytes: head };
      this.#checkInBlob(inode, sizeBytes);
      const wholeBytes = alignUp(head, erofs.chunkIndexBytes) + erofs.chunkIndexBytes;
      return { sizeBytes, layout: erofs.layouts.chunks, wholeBytes };
    }
    let sizeBytes = 0;
    if (type === inodeTypes.dir) sizeBytes = this.#plan.directories.get(inode)?.sizeBytes ?? 0;
    else if (type === inodeTypes.symlink) sizeBytes = tree.links.get(inode)?.length ?? 0;
    if (!isInline(head, sizeBytes)) return { sizeBytes, layout: erofs.layouts.plain, wholeBytes: head };
    return { sizeBytes, layout: erofs.layouts.inline, wholeBytes: head + (sizeBytes % blockBytes) };
  }

  #checkInBlob(inode: number, sizeBytes: number): void {
    const layer = this.#tree.layer[inode] ?? 0;
    const place = this.#tree.place[inode] ?? -1;
    const blob = this.#devices[layer];
    const fits =
      blob !== undefined && place + sizeBytes <= unitsOf(blob.blobSizeBytes, blockBytes) * blockBytes;
    if (fits && place >= 0 && place % blockBytes === 0 && place / blockBytes < 0xffffffff) return;
    throw new IndexError(
      "bad_layer",
      `layer ${layer + 1} has a file of ${sizeBytes} bytes at ${place}, outside of its blob`,
      {
        next: "Build the image again.",
      },
    );
  }

  #numberOf(inode: number): number {
    return this.#plan.numbers[inode] ?? 0;
  }
}

/** How an inode is written, without its contents. */
interface Shape {
  readonly sizeBytes: number;
  readonly layout: number;
  /** Bytes from the inode's start to the end of what belongs to it. */
  readonly wholeBytes: number;
}

/** A UUID (RFC 9562, version 8) that differs when the image does, as far as names, sizes and times tell. */
function imageUuid(tree: Tree, plan: ErofsPlan, devices: readonly ErofsDevice[]): Uint8Array {
  const hasher = new Bun.CryptoHasher("sha256");
  hasher.update(devices.map((device) => device.blobSizeBytes).join(" "));
  for (const { names } of plan.directories.values()) hasher.update(names.join("/"));
  const { count } = tree;
  for (const column of [
    plan.numbers,
    tree.mode,
    tree.uid,
    tree.gid,
    tree.mtimeSeconds,
    tree.size,
    tree.place,
  ]) {
    hasher.update(column.subarray(0, count));
  }
  const uuid = new Uint8Array(hasher.digest().subarray(0, 16));
  uuid[6] = ((uuid[6] ?? 0) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80;
  return uuid;
}
