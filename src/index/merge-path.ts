import { IndexError } from "./error.ts";
import { checkLimit, defaultIndexLimits, type IndexLimits } from "./limits.ts";
import { assertName } from "./merge-entry.ts";
import { inodeOf, layerOf, type Tree } from "./tree.ts";
import { impliedDirectory, inodeTypes } from "./tree-inode.ts";

/** As many symbolic links are followed for one path; the file system joins of container engines stop there too. */
const linksPerPathMax = 255;
/** As many parts of link targets are walked for one image: hostile links cannot hold up the merge. */
const linkStepsMax = 20_000_000;

/** Whether directories that are missing on the way are made, or the search ends there. */
export type Missing = "make" | "stop";

/**
 * Finds directories of a tree by path, through symbolic links, without ever leaving the root: `..` of the root is the
 * root, an absolute target starts there. The last part of a path is never followed by the callers here, who look up the
 * directory that holds it.
 */
export class PathFinder {
  readonly #tree: Tree;
  readonly #limits: IndexLimits;
  readonly #found = new Map<string, number>();
  #layer = 0;
  #linkSteps = 0;
  #implied = 0;

  constructor(tree: Tree, limits = defaultIndexLimits) {
    this.#tree = tree;
    this.#limits = limits;
  }

  /** Starts a layer: directories on the way to what is put from now on count as touched by it. */
  startLayer(layer: number): void {
    this.#layer = layer;
    this.#found.clear();
  }

  /** Forgets what was found: to be called when a name was taken away or given to something else. */
  forget(): void {
    if (this.#found.size > 0) this.#found.clear();
  }

  /**
   * The inode of the directory at `path`. With `make`, missing ones are made (0755, root's), a file on the way gives
   * place to a directory, and all on the way are marked as the layer's. With `stop`, `undefined` if it is not there.
   *
   * @throws IndexError `bad_layer` when links lead in a circle, or through a link to what is no directory;
   *   `limit_exceeded`
   */
  directory(path: string, missing: Missing): number | undefined {
    if (path === "") return this.#tree.root;
    if (missing === "stop") return this.#walk(path, missing);
    const known = this.#found.get(path);
    if (known !== undefined) return known;
    const inode = this.#walk(path, missing);
    if (inode !== undefined) this.#found.set(path, inode);
    return inode;
  }

  #walk(path: string, missing: Missing): number | undefined {
    const tree = this.#tree;
    const way = new Way(tree.root);
    /** What is still to be walked, the next part last; parts of a link's target lie above the rest of the path. */
    const todo = path.split("/").reverse();
    let lexical = todo.length;
    let links = 0;
    for (let part = todo.pop(); part !== undefined; part = todo.pop()) {
      const fromLink = todo.length >= lexical;
      if (!fromLink) lexical = todo.length;
      else if (++this.#linkSteps > linkStepsMax) throw circle(path);
      if (part === "" || part === ".") continue;
      if (part === "..") {
        way.up();
        continue;
      }
      const entry = way.here < 0 ? undefined : tree.entry(way.here, part);
      if (entry === undefined) {
        if (missing === "stop" && !fromLink) return undefined;
        way.down(part, notThere);
        continue;
      }
      const inode = inodeOf(entry);
      const type = tree.typeOf(inode);
      if (type === inodeTypes.dir) {
        way.down(part, inode);
      } else if (type === inodeTypes.symlink) {
        links += 1;
        if (links > linksPerPathMax) {
          if (missing === "stop") return undefined;
          throw circle(path);
        }
        const target = tree.links.get(inode) ?? "";
        if (target.startsWith("/")) way.toRoot();
        todo.push(...target.split("/").reverse());
      } else {
        if (missing === "stop") return undefined;
        if (fromLink) throw noDirectory(path);
        way.down(part, notThere);
      }
    }
    if (missing === "stop") return way.here < 0 ? undefined : way.here;
    return this.#make(way);
  }

  /** Makes what is missing on the way and marks all of it as the layer's. */
  #make(way: Way): number {
    const tree = this.#tree;
    let here = tree.root;
    for (const [at, name] of way.names.entries()) {
      let inode = way.inodes[at + 1] ?? notThere;
      const entry = tree.entry(here, name);
      if (inode === notThere) {
        assertName(name, () => way.names.join("/"));
        this.#implied += 1;
        checkLimit(
          this.#limits,
          "impliedDirectoriesMax",
          this.#implied,
          () => "directories without an entry",
        );
        inode = tree.add({ ...impliedDirectory, layer: this.#layer });
        tree.put(here, name, inode, this.#layer);
        if (entry !== undefined) this.forget();
      } else if (entry === undefined || layerOf(entry) !== this.#layer) {
        tree.put(here, name, inode, this.#layer);
      }
      here = inode;
    }
    return here;
  }
}

/** Stands for a directory that is still to be made. */
const notThere = -1;

/** The directories from the root to where a walk has come: `names[i]` leads from `inodes[i]` to `inodes[i + 1]`. */
class Way {
  readonly inodes: number[];
  readonly names: string[] = [];

  constructor(root: number) {
    this.inodes = [root];
  }

  get here(): number {
    return this.inodes[this.inodes.length - 1] ?? notThere;
  }

  down(name: string, inode: number): void {
    this.names.push(name);
    this.inodes.push(inode);
  }

  up(): void {
    if (this.names.length === 0) return;
    this.names.pop();
    this.inodes.pop();
  }

  toRoot(): void {
    this.names.length = 0;
    this.inodes.length = 1;
  }
}

function circle(path: string): IndexError {
  return new IndexError("bad_layer", `${JSON.stringify(path)} leads through too many symbolic links`, {
    next: "Build the image without symbolic links that lead in a circle.",
  });
}

function noDirectory(path: string): IndexError {
  return new IndexError(
    "bad_layer",
    `${JSON.stringify(path)} leads through a symbolic link to something that is no directory`,
    { next: "Build the image so that the symbolic link points to a directory, or replace the link by one." },
  );
}
