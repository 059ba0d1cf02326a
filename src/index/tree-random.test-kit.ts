import { LayerMerger } from "./merge.ts";
import { PathFinder } from "./merge-path.ts";
import { inodeOf, type Tree } from "./tree.ts";
import { inodeTypes } from "./tree-inode.ts";
import { indexTestLayer, type TestEntry, type TestLayer } from "./tree-layers.test-kit.ts";

const allNames = [
  "a",
  "b",
  "c",
  "-",
  "!",
  ".x",
  "Z",
  "caf\xe9",
  "\xff\xfe",
  "long".repeat(40),
  "a b",
  "\\n\\",
];
const plainNames = allNames.filter((name) => /^[ -~]*$/.test(name));

/** A sequence of numbers that the seed determines (mulberry32). */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export interface RandomLayersOptions {
  /**
   * Whether the kernel must find all directories: unlike engines, it does not go through what is not there and back by `..`.
   * What removes something then stands first in its layer, as overlayfs has it.
   */
  readonly walkable?: boolean;
  /** Whether all names can be told in JSON. */
  readonly asciiNames?: boolean;
}

/**
 * Layers with whiteouts, opaque directories, links of all kinds and things that replace each other. Every entry is one
 * that an engine could unpack: its directory is there, a hardlink's target too.
 *
 */
export function randomLayers(
  seed: number,
  layerCount: number,
  entriesPerLayer: number,
  { walkable = false, asciiNames = false }: RandomLayersOptions = {},
): TestLayer[] {
  const pick = random(seed);
  const merger = new LayerMerger();
  const finder = walkable ? new KernelFinder(merger.tree) : new PathFinder(merger.tree);
  const layers: TestLayer[] = [];
  for (let layer = 0; layer < layerCount; layer += 1) {
    const entries: TestEntry[] = [{ path: "", type: "dir", mtime: [layer, layer] }];
    merger.startLayer();
    const described = new Set<string>();
    while (entries.length < entriesPerLayer) {
      const first = entries.length < entriesPerLayer / 6;
      const kinds = walkable && layer > 0 ? (first ? "markers" : "others") : layer > 0 ? "all" : "others";
      const entry = randomEntry(pick, merger, finder, kinds, described, asciiNames ? plainNames : allNames);
      if (entry === undefined) continue;
      for (const item of indexTestLayer([entry]).toc) merger.add(item);
      entries.push(entry);
    }
    merger.endLayer();
    layers.push(entries);
  }
  return layers;
}

function randomEntry(
  pick: (below: number) => number,
  merger: LayerMerger,
  finder: Pick<PathFinder, "directory">,
  kinds: "all" | "markers" | "others",
  described: Set<string>,
  names: readonly string[],
): TestEntry | undefined {
  const { tree } = merger;
  const directory = Array.from({ length: pick(4) }, () => names[pick(names.length)]).join("/");
  const parent = finder.directory(directory, "stop");
  if (parent === undefined) return undefined;
  const name = names[pick(names.length)] ?? "";
  const path = directory === "" ? name : `${directory}/${name}`;
  const before = tree.entry(parent, name);
  // Tar removes what has the name and then looks for the path anew: that must not have been the way to it.
  if (
    before !== undefined &&
    kinds !== "markers" &&
    finder instanceof KernelFinder &&
    finder.linksFollowed > 0
  )
    return undefined;
  const common = {
    path,
    mode: pick(0o10000),
    uid: pick(3) === 0 ? 3_000_000_000 + pick(9) : pick(2000),
    gid: pick(2000),
    mtime: [pick(2) === 0 ? pick(4_000_000_000) : -pick(1_000_000_000), pick(1_000_000_000)] as const,
  };
  const xattrs = pick(4) === 0 ? { "user.x": String(pick(99)), "trusted.y": "z".repeat(1 + pick(300)) } : {};
  const kind = kinds === "markers" ? 12 + pick(2) : pick(kinds === "all" ? 14 : 12);
  if (kind < 4) {
    described.add(`${parent}/${name}`);
    return { ...common, type: "dir", mode: common.mode | 0o700, xattrs };
  }
  // A directory whose metadata come from below and that is only implied here is no entry to hide: practice differs.
  if (kind >= 12) {
    const inode = before === undefined ? undefined : inodeOf(before);
    if (inode !== undefined && tree.isDirectory(inode) && !described.has(`${parent}/${name}`))
      return undefined;
    if (kind === 12) return { path: `${directory === "" ? "" : `${directory}/`}.wh.${name}`, type: "file" };
    if (finder.directory(path, "stop") === undefined) return undefined;
    return { path: `${path}/.wh..wh..opq`, type: "file" };
  }
  if (kind < 7) return { ...common, type: "file", content: "x".repeat(pick(3) * 4096 + pick(100)), xattrs };
  if (kind === 7) return { ...common, type: "symlink", link: randomTarget(pick, names) };
  if (kind === 8) return { ...common, type: "fifo" };
  if (kind === 9)
    return { ...common, type: pick(2) === 0 ? "char" : "block", device: [1 + pick(255), pick(300)] };
  const link = Array.from({ length: 1 + pick(3) }, () => names[pick(names.length)]).join("/");
  const cut = link.lastIndexOf("/");
  const holder = finder.directory(cut < 0 ? "" : link.slice(0, cut), "stop");
  const target = holder === undefined ? undefined : tree.entry(holder, link.slice(cut + 1));
  if (target === undefined || target === before || tree.typeOf(inodeOf(target)) === inodeTypes.dir)
    return undefined;
  // Engines take away what has the name first, and then may not find the target through it.
  const type = before === undefined ? inodeTypes.file : tree.typeOf(inodeOf(before));
  if (type === inodeTypes.dir || type === inodeTypes.symlink) return undefined;
  return { path, type: "hardlink", link };
}

function randomTarget(pick: (below: number) => number, names: readonly string[]): string {
  const parts = Array.from({ length: 1 + pick(3) }, () =>
    pick(4) === 0 ? ".." : (names[pick(names.length)] ?? ""),
  );
  return (pick(4) === 0 ? "/" : "") + parts.join("/");
}

/** Finds directories as the kernel does in a chroot (`path_resolution(7)`). */
class KernelFinder implements Pick<PathFinder, "directory"> {
  readonly #tree: Tree;
  /** Of the last search. */
  linksFollowed = 0;

  constructor(tree: Tree) {
    this.#tree = tree;
  }

  directory(path: string): number | undefined {
    const tree = this.#tree;
    const todo = path.split("/").reverse();
    let way = [tree.root];
    this.linksFollowed = 0;
    while (todo.length > 0) {
      const part = todo.pop() ?? "";
      if (part === "" || part === ".") continue;
      if (part === "..") {
        if (way.length > 1) way.pop();
        continue;
      }
      const entry = tree.entry(way.at(-1) ?? tree.root, part);
      if (entry === undefined) return undefined;
      const inode = inodeOf(entry);
      const target = tree.links.get(inode);
      if (tree.isDirectory(inode)) way.push(inode);
      else if (target === undefined || tree.typeOf(inode) !== inodeTypes.symlink || this.linksFollowed === 40)
        return undefined;
      else {
        this.linksFollowed += 1;
        if (target.startsWith("/")) way = [tree.root];
        todo.push(...target.split("/").reverse());
      }
    }
    return way.at(-1);
  }
}
