import { checkLimit, defaultIndexLimits, type IndexLimits } from "./limits.ts";
import { type InodeFields, impliedDirectory, inodeTypes } from "./tree-inode.ts";
import { type TreeXattr, TreeXattrs } from "./tree-xattrs.ts";

/** The most layers that a tree can tell apart. */
export const layersMax = 65535;

/**
 * The merged tree of an image: inodes in columns (about 50 bytes each), names in one map per directory.
 *
 * Inode 0 is the root. Inodes that lost their last name stay in the columns, unreachable; whoever walks the tree from
 * the root does not meet them. Names and link targets are latin1 text, one character per byte.
 */
export class Tree {
  readonly root = 0;
  readonly xattrs = new TreeXattrs();
  /** Symlink: its target. Pending hardlink: the path that it names. */
  readonly links = new Map<number, string>();
  readonly #limits: IndexLimits;
  readonly #directories = new Map<number, Map<string, number>>();
  #count = 0;
  mode = new Uint16Array(1024);
  uid = new Uint32Array(1024);
  gid = new Uint32Array(1024);
  mtimeSeconds = new Float64Array(1024);
  mtimeNanos = new Uint32Array(1024);
  size = new Float64Array(1024);
  place = new Float64Array(1024);
  layer = new Uint16Array(1024);

  constructor(limits = defaultIndexLimits) {
    this.#limits = limits;
    this.add({ ...impliedDirectory, layer: 0 });
  }

  /** Inodes ever made, the unreachable ones included. */
  get count(): number {
    return this.#count;
  }

  /** Makes an inode, which has no name yet; of a directory, with nothing in it. @throws IndexError `limit_exceeded` */
  add(fields: InodeFields): number {
    const inode = this.#count;
    checkLimit(this.#limits, "inodesMax", inode + 1, () => "the files of the image");
    if (inode === this.mode.length) this.#grow();
    this.#count += 1;
    this.set(inode, fields);
    if (this.isDirectory(inode)) this.#directories.set(inode, new Map());
    return inode;
  }

  /** Replaces what is known of an inode. A directory keeps what is in it and must stay a directory. */
  set(inode: number, fields: InodeFields): void {
    this.mode[inode] = fields.mode;
    this.uid[inode] = fields.uid;
    this.gid[inode] = fields.gid;
    this.mtimeSeconds[inode] = fields.mtimeSeconds;
    this.mtimeNanos[inode] = fields.mtimeNanos;
    this.size[inode] = fields.size;
    this.place[inode] = fields.place;
    this.layer[inode] = fields.layer;
  }

  setXattrs(inode: number, xattrs: readonly TreeXattr[] | undefined): void {
    this.xattrs.set(inode, this.typeOf(inode), xattrs);
  }

  typeOf(inode: number): number {
    return (this.mode[inode] ?? 0) & inodeTypes.mask;
  }

  isDirectory(inode: number): boolean {
    return this.typeOf(inode) === inodeTypes.dir;
  }

  /** The entries of a directory: from name to inode, see {@link inodeOf} and {@link layerOf}. */
  entries(directory: number): ReadonlyMap<string, number> {
    const entries = this.#directories.get(directory);
    if (entries === undefined) throw new TypeError(`inode ${directory} is no directory of the tree`);
    return entries;
  }

  /** The entry called `name`, or `undefined`. */
  entry(directory: number, name: string): number | undefined {
    return this.#directories.get(directory)?.get(name);
  }

  /** Names an inode, as seen from a layer; the thing that had the name before is discarded, if it is another one. */
  put(directory: number, name: string, inode: number, layer: number): void {
    const entries = this.#directories.get(directory);
    const before = entries?.get(name);
    entries?.set(before === undefined ? ownCopy(name) : name, inode * (layersMax + 1) + layer);
    if (before !== undefined && inodeOf(before) !== inode) this.#discard(inodeOf(before));
  }

  /** Takes a name away, with all that is below it. */
  remove(directory: number, name: string): void {
    const entries = this.#directories.get(directory);
    const before = entries?.get(name);
    if (before === undefined) return;
    entries?.delete(name);
    this.#discard(inodeOf(before));
  }

  /** Gives back the memory of a directory tree that lost its name. Other inodes may have names elsewhere. */
  #discard(inode: number): void {
    const todo = [inode];
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      const entries = this.#directories.get(next);
      if (entries === undefined) continue;
      this.#directories.delete(next);
      this.xattrs.delete(next);
      for (const entry of entries.values()) todo.push(inodeOf(entry));
    }
  }

  #grow(): void {
    const length = this.mode.length * 2;
    this.mode = grown(this.mode, new Uint16Array(length));
    this.uid = grown(this.uid, new Uint32Array(length));
    this.gid = grown(this.gid, new Uint32Array(length));
    this.mtimeSeconds = grown(this.mtimeSeconds, new Float64Array(length));
    this.mtimeNanos = grown(this.mtimeNanos, new Uint32Array(length));
    this.size = grown(this.size, new Float64Array(length));
    this.place = grown(this.place, new Float64Array(length));
    this.layer = grown(this.layer, new Uint16Array(length));
  }
}

/** The inode of a directory entry. */
export function inodeOf(entry: number): number {
  return Math.floor(entry / (layersMax + 1));
}

/** The layer that last put this name, or something below it. */
export function layerOf(entry: number): number {
  return entry % (layersMax + 1);
}

function grown<T extends Uint16Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from);
  return to;
}

/** A copy of a name that does not keep alive the whole path that it was cut from. */
function ownCopy(name: string): string {
  return Buffer.from(name, "latin1").toString("latin1");
}
