import { IndexError } from "./error.ts";
import { isAccessList } from "./tree-acl.ts";
import { inodeTypes } from "./tree-inode.ts";

/** A full name as latin1 text, and the raw value. */
export type TreeXattr = readonly [name: string, value: Uint8Array];

/**
 * The prefixes that the kernel's EROFS knows, with their numbers (Linux, `fs/erofs/erofs_fs.h`, "Name indexes").
 * The two access control lists have no name beyond the prefix.
 */
const prefixes: readonly (readonly [prefix: string, index: number])[] = [
  ["user.", 1],
  ["system.posix_acl_access", 2],
  ["system.posix_acl_default", 3],
  ["trusted.", 4],
  ["security.", 6],
];

/** What one image may hold in extended attributes altogether; they are kept in memory while the tree is merged. */
const totalBytesMax = 256 * 1024 * 1024;
/** Linux refuses larger values and longer names (`XATTR_SIZE_MAX` is one more, which the format cannot hold). */
const valueBytesMax = 65535;
const nameBytesMax = 255;
/** Enough distinct names to tell what an image brings; a hostile one could bring a million. */
const droppedNamesMax = 32;

/** The extended attributes of a tree's inodes, as far as the mounted image may show them. */
export class TreeXattrs {
  readonly #byInode = new Map<number, readonly TreeXattr[]>();
  readonly #dropped = new Map<string, number>();
  #totalBytes = 0;

  /** The attributes of an inode sorted by name, or `undefined` when it has none. */
  get(inode: number): readonly TreeXattr[] | undefined {
    return this.#byInode.get(inode);
  }

  /** How often an attribute was left out, by name: see {@link keepsXattr}. */
  get dropped(): ReadonlyMap<string, number> {
    return this.#dropped;
  }

  /** Replaces an inode's attributes. @throws IndexError `limit_exceeded` */
  set(inode: number, type: number, xattrs: readonly TreeXattr[] | undefined): void {
    this.delete(inode);
    if (xattrs === undefined || xattrs.length === 0) return;
    const kept = new Map<string, Uint8Array>();
    for (const [name, value] of xattrs) {
      if (!keepsXattr(name, value, type)) this.#drop(name);
      else kept.set(name, value);
    }
    if (kept.size === 0) return;
    const sorted = [...kept].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    for (const [name, value] of sorted) this.#totalBytes += checkedBytes(name, value);
    if (this.#totalBytes > totalBytesMax) {
      throw tooMuch(`the image's extended attributes are larger than ${totalBytesMax} bytes altogether`);
    }
    this.#byInode.set(inode, sorted);
  }

  delete(inode: number): void {
    for (const [name, value] of this.#byInode.get(inode) ?? [])
      this.#totalBytes -= name.length + value.length;
    this.#byInode.delete(inode);
  }

  #drop(name: string): void {
    const key = this.#dropped.has(name) || this.#dropped.size < droppedNamesMax ? name : "others";
    this.#dropped.set(key, (this.#dropped.get(key) ?? 0) + 1);
  }
}

/** The number of an attribute's prefix in EROFS, and the rest of its name; `undefined` when EROFS has none for it. */
export function xattrPrefix(name: string): readonly [index: number, rest: string] | undefined {
  for (const [prefix, index] of prefixes) {
    if (!name.startsWith(prefix)) continue;
    const rest = name.slice(prefix.length);
    if (prefix.endsWith(".") ? rest !== "" : rest === "") return [index, rest];
  }
  return undefined;
}

/**
 * Whether an attribute of a layer is shown. Left out are: names that EROFS cannot hold; `trusted.overlay.*` and
 * `user.overlay.*`, by which a layer could steer the overlay that we put above; `security.selinux`, a label of the machine that built the layer; and
 * what Linux does not let such an inode have (`xattr(7)`), or that would lock it up: an access control list that is none.
 */
export function keepsXattr(name: string, value: Uint8Array, inodeType: number): boolean {
  if (xattrPrefix(name) === undefined || name.includes("\0")) return false;
  if (name.startsWith("trusted.overlay.") || name.startsWith("user.overlay.")) return false;
  if (name === "security.selinux") return false;
  if (name.startsWith("user.")) return inodeType === inodeTypes.file || inodeType === inodeTypes.dir;
  if (name === "system.posix_acl_default") return inodeType === inodeTypes.dir && isAccessList(value);
  if (name === "system.posix_acl_access") return inodeType !== inodeTypes.symlink && isAccessList(value);
  return true;
}

function checkedBytes(name: string, value: Uint8Array): number {
  if (name.length > nameBytesMax) throw tooMuch(`an extended attribute's name has ${name.length} bytes`);
  if (value.length > valueBytesMax) {
    throw tooMuch(`the extended attribute ${JSON.stringify(name)} has a value of ${value.length} bytes`);
  }
  return name.length + value.length;
}

function tooMuch(message: string): IndexError {
  return new IndexError("limit_exceeded", message, {
    next: "Build the image without these extended attributes.",
  });
}
