import { IndexError } from "./error.ts";
import { defaultIndexLimits } from "./limits.ts";
import { assertName, checkedTarget, inodeFields, linkToDirectory, shown } from "./merge-entry.ts";
import { PathFinder } from "./merge-path.ts";
import { inodeOf, layerOf, layersMax, Tree } from "./tree.ts";
import { impliedDirectory, inodeTypes } from "./tree-inode.ts";
import type { TocEntry } from "./types.ts";

/** Rounds over the hardlinks that wait for something else to be settled first. */
const roundsMax = 8;

/**
 * The tree that the layers make together, given their tables of contents from the lowest layer to the highest.
 *
 * It is what an overlay over the layers shows, or what unpacking one over the other gives (OCI image specification,
 * `layer.md`, "Applying Changesets"), with these choices where practice differs or the specification is silent:
 *
 * - A whiteout or an opaque marker hides what lower layers have, never what its own layer has, wherever in the layer it
 *   stands. A directory that a layer whites out and yet puts files into begins anew with implied metadata.
 * - Parents of a path are resolved through symbolic links, inside of the root. The last part is not followed: a
 *   directory over a symbolic link replaces the link.
 * - A directory that no entry describes is 0755, root's, of 1970. A file where a path needs a directory gives place.
 * - A hardlink is another name for the inode, wherever that comes from; its own metadata do not count. If its target is
 *   not there yet, it is looked for again at the end of the layer.
 * - A character device 0:0 is a whiteout, since the overlay that is mounted above takes it for one.
 *
 * @throws IndexError `bad_layer` for a hardlink to nothing or to a directory, a root that is no directory, or links in
 *   a circle; `limit_exceeded` for names, targets or attributes that Linux could not show
 */
export function mergeLayers(tocs: Iterable<Iterable<TocEntry>>): Tree {
  const merger = new LayerMerger();
  for (const toc of tocs) {
    merger.startLayer();
    for (const entry of toc) merger.add(entry);
    merger.endLayer();
  }
  return merger.tree;
}

/** {@link mergeLayers} in steps, for a caller that lets others run in between. */
export class LayerMerger {
  readonly tree: Tree;
  readonly #paths: PathFinder;
  /** Hardlinks of the current layer without a target so far. */
  #pending = new Map<number, PendingLink>();
  /** Directories below which the current layer has hidden all that was lower. */
  readonly #hidden = new Set<number>();
  #layer = -1;

  constructor(limits = defaultIndexLimits) {
    this.tree = new Tree(limits);
    this.#paths = new PathFinder(this.tree, limits);
  }

  startLayer(): void {
    this.#layer += 1;
    if (this.#layer >= layersMax) {
      throw new IndexError("limit_exceeded", `the image has more than ${layersMax} layers`);
    }
    this.#paths.startLayer(this.#layer);
  }

  add(entry: TocEntry): void {
    if (entry.type === "opaque") this.#hideAllBelow(this.#paths.directory(entry.path, "stop"));
    else if (entry.path === "") this.#describeRoot(entry);
    else if (entry.type === "whiteout") this.#whiteOut(entry.path);
    else if (entry.type === "char" && !entry.deviceMajor && !entry.deviceMinor)
      this.#removeWholly(entry.path);
    else if (entry.type === "hardlink") this.#linkTo(entry);
    else this.#put(entry);
  }

  /** Gives the hardlinks that wait for their targets an inode. @throws IndexError `bad_layer` */
  endLayer(): void {
    this.#hidden.clear();
    let waiting = this.#pending;
    this.#pending = new Map();
    // One round settles chains of any length and order; more are needed only for targets behind hardlinks to links.
    for (let round = 0; waiting.size > 0; round += 1) {
      const stuck = new Set<number>();
      const left = new Map([...waiting].filter(([, link]) => !this.#settleChain(link, waiting, stuck)));
      const [unsettled] = left.values();
      if (unsettled !== undefined && (left.size === waiting.size || round === roundsMax)) {
        throw this.#noTarget(unsettled);
      }
      waiting = left;
    }
  }

  #describeRoot(entry: TocEntry): void {
    if (entry.type !== "dir") {
      throw new IndexError(
        "bad_layer",
        `layer ${this.#layer + 1} makes the root something other than a directory`,
        {
          next: "Build the image again: its root must be a directory.",
        },
      );
    }
    this.#describe(this.tree.root, entry);
  }

  #put(entry: TocEntry): void {
    const { directory, name } = this.#place(entry.path);
    const before = this.tree.entry(directory, name);
    if (entry.type === "dir" && before !== undefined && this.tree.isDirectory(inodeOf(before))) {
      this.#describe(inodeOf(before), entry);
      if (layerOf(before) !== this.#layer) this.tree.put(directory, name, inodeOf(before), this.#layer);
      return;
    }
    const inode = this.tree.add(inodeFields(entry, this.#layer));
    if (entry.type === "symlink") this.tree.links.set(inode, checkedTarget(entry));
    this.tree.setXattrs(inode, entry.xattrs);
    this.tree.put(directory, name, inode, this.#layer);
    if (before !== undefined) this.#paths.forget();
  }

  #linkTo(entry: TocEntry): void {
    const target = this.#find(entry.link ?? "");
    const { directory, name } = this.#place(entry.path);
    const before = this.tree.entry(directory, name);
    let inode = target;
    if (target === undefined || this.tree.typeOf(target) === inodeTypes.pending) {
      inode = this.tree.add({ ...impliedDirectory, mode: inodeTypes.pending, layer: this.#layer });
      this.#pending.set(inode, { inode, directory, name, path: entry.path, target: entry.link ?? "" });
    } else if (this.tree.isDirectory(target)) {
      throw linkToDirectory(entry);
    }
    if (inode === undefined) return;
    this.tree.put(directory, name, inode, this.#layer);
    if (before !== undefined) this.#paths.forget();
  }

  /**
   * Settles the link that a link names before the link itself, down the chain; true when it is done with. Links of a
   * chain that leads nowhere are `stuck`, so that a long one is walked once.
   */
  #settleChain(link: PendingLink, waiting: ReadonlyMap<number, PendingLink>, stuck: Set<number>): boolean {
    const chain: PendingLink[] = [];
    const seen = new Set<number>();
    for (let next: PendingLink | undefined = link; next !== undefined && !seen.has(next.inode); ) {
      chain.push(next);
      seen.add(next.inode);
      const target = this.#find(next.target);
      next = target === undefined || stuck.has(target) ? undefined : waiting.get(target);
    }
    let settled = false;
    for (let next = chain.pop(); next !== undefined; next = chain.pop()) {
      settled = this.#settle(next);
      if (!settled) stuck.add(next.inode);
    }
    return settled;
  }

  /** Gives a waiting hardlink its inode; true when it is done with. */
  #settle(link: PendingLink): boolean {
    const entry = this.tree.entry(link.directory, link.name);
    if (entry === undefined || inodeOf(entry) !== link.inode) return true;
    const target = this.#find(link.target);
    if (target === undefined || this.tree.typeOf(target) === inodeTypes.pending) return false;
    if (this.tree.isDirectory(target)) throw linkToDirectory({ path: link.path, link: link.target });
    this.tree.put(link.directory, link.name, target, this.#layer);
    return true;
  }

  #whiteOut(path: string): void {
    const place = this.#existing(path);
    if (place === undefined) return;
    const { directory, name, entry } = place;
    const inode = inodeOf(entry);
    if (layerOf(entry) !== this.#layer) {
      this.tree.remove(directory, name);
      this.#paths.forget();
    } else if (this.tree.isDirectory(inode)) {
      this.#hideAllBelow(inode);
      if (this.tree.layer[inode] === this.#layer) return;
      this.tree.set(inode, { ...impliedDirectory, layer: this.#layer });
      this.tree.setXattrs(inode, undefined);
    }
  }

  #removeWholly(path: string): void {
    const place = this.#existing(path);
    if (place === undefined) return;
    this.tree.remove(place.directory, place.name);
    this.#paths.forget();
  }

  /** Takes away what lower layers have below a directory. */
  #hideAllBelow(directory: number | undefined): void {
    if (directory === undefined) return;
    const todo = [directory];
    let removed = false;
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      if (this.#hidden.has(next)) continue;
      this.#hidden.add(next);
      for (const [name, entry] of this.tree.entries(next)) {
        if (layerOf(entry) !== this.#layer) {
          this.tree.remove(next, name);
          removed = true;
        } else if (this.tree.isDirectory(inodeOf(entry))) {
          todo.push(inodeOf(entry));
        }
      }
    }
    if (removed) this.#paths.forget();
  }

  #describe(directory: number, entry: TocEntry): void {
    this.tree.set(directory, inodeFields(entry, this.#layer));
    this.tree.setXattrs(directory, entry.xattrs);
  }

  /** Where a new name goes: its directory, made if it is missing. */
  #place(path: string): { directory: number; name: string } {
    const cut = path.lastIndexOf("/");
    const name = path.slice(cut + 1);
    const directory = this.#paths.directory(cut < 0 ? "" : path.slice(0, cut), "make");
    assertName(name, () => path);
    return { directory: directory ?? this.tree.root, name };
  }

  #existing(path: string): { directory: number; name: string; entry: number } | undefined {
    const cut = path.lastIndexOf("/");
    const name = path.slice(cut + 1);
    const directory = this.#paths.directory(cut < 0 ? "" : path.slice(0, cut), "stop");
    if (directory === undefined) return undefined;
    const entry = this.tree.entry(directory, name);
    return entry === undefined ? undefined : { directory, name, entry };
  }

  /** The inode at a path, whose last part is not followed. */
  #find(path: string): number | undefined {
    if (path === "") return this.tree.root;
    const place = this.#existing(path);
    return place === undefined ? undefined : inodeOf(place.entry);
  }

  #noTarget(link: PendingLink | undefined): IndexError {
    const path = JSON.stringify(shown(link?.path ?? ""));
    const target = JSON.stringify(shown(link?.target ?? ""));
    return new IndexError(
      "bad_layer",
      `layer ${this.#layer + 1}: the hardlink ${path} names ${target}, which is not there`,
      {
        next: "Build the image again; no engine could unpack this layer.",
      },
    );
  }
}

interface PendingLink {
  readonly inode: number;
  readonly directory: number;
  readonly name: string;
  readonly path: string;
  readonly target: string;
}
