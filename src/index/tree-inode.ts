/** The bits of `st_mode` that say what an inode is (`inode(7)`). */
export const inodeTypes = {
  mask: 0o170000,
  fifo: 0o010000,
  char: 0o020000,
  dir: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  /** A hardlink whose target was not met yet: none is left in a tree that is whole. */
  pending: 0,
} as const;

/** What an inode is made from. `mode` holds type and permissions. */
export interface InodeFields {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  /** Bytes of a regular file. */
  readonly size: number;
  /** Regular file: offset of its bytes in the blob of its layer. Device: its number as Linux encodes it in 32 bits. */
  readonly place: number;
  /** Number of the layer that it comes from; of a directory, the layer that its metadata come from. */
  readonly layer: number;
}

/** The metadata of a directory that no layer describes: one that is only implied by a path, and the root. */
export const impliedDirectory: Omit<InodeFields, "layer"> = {
  mode: inodeTypes.dir | 0o755,
  uid: 0,
  gid: 0,
  mtimeSeconds: 0,
  mtimeNanos: 0,
  size: 0,
  place: 0,
};
