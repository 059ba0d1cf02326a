import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { cleanEnvironment } from "../std/spawn.ts";

export interface TreeDiffOptions {
  /** Paths (latin1, no leading `/`, `""` the root) whose modification times may differ. */
  readonly anyTime?: (path: string) => boolean;
  /** Whether the link counts of directories are compared; those of an overlay are always 1. */
  readonly directoryLinks?: boolean;
  /**
   * Whether names of one inode on the left may be of several, equal ones on the right: overlayfs takes a lower layer's
   * hardlink apart when a higher layer links to it.
   */
  readonly linksMayBreak?: boolean;
  /** Whether contents are read and compared. On by default. */
  readonly contents?: boolean;
}

/** One thing of a tree, each property as text that can be compared and shown. */
type Facts = Map<string, string>;

/**
 * What differs between two directory trees, one line each, empty when they are the same: names (as bytes), types, modes,
 * owners, modification times to the nanosecond, sizes and contents of files, link targets, which names are hardlinks of
 * one inode, extended attributes, device numbers.
 */
export async function diffTrees(
  left: string,
  right: string,
  options: TreeDiffOptions = {},
): Promise<string[]> {
  const [one, other] = await Promise.all([readTree(left, options), readTree(right, options)]);
  const differences: string[] = [];
  for (const path of [...new Set([...one.keys(), ...other.keys()])].sort()) {
    const a = one.get(path);
    const b = other.get(path);
    if (a === undefined) differences.push(`${shown(path)}: only in the second`);
    else if (b === undefined) differences.push(`${shown(path)}: only in the first`);
    else {
      if (options.linksMayBreak === true && isSubset(b.get("hardlinks"), a.get("hardlinks")))
        for (const key of ["links", "hardlinks"]) for (const facts of [a, b]) facts.delete(key);
      differences.push(...diffFacts(path, a, b));
    }
  }
  return differences;
}

/** Whether a list of names has only names of another; one without names is of one alone. */
function isSubset(names: string | undefined, of: string | undefined): boolean {
  if (of === undefined) return false;
  const all = new Set(of.split(" "));
  return names === undefined || (names !== of && names.split(" ").every((name) => all.has(name)));
}

function diffFacts(path: string, a: Facts, b: Facts): string[] {
  const keys = [...new Set([...a.keys(), ...b.keys()])];
  return keys
    .filter((key) => a.get(key) !== b.get(key))
    .map((key) => `${shown(path)}: ${key} ${a.get(key) ?? "(none)"} | ${b.get(key) ?? "(none)"}`);
}

async function readTree(root: string, options: TreeDiffOptions): Promise<Map<string, Facts>> {
  const tree = new Map<string, Facts>();
  const names = new Map<string, string[]>();
  const todo = [""];
  for (let path = todo.pop(); path !== undefined; path = todo.pop()) {
    const full = bytesOf(root, path);
    const stat = lstatSync(full, { bigint: true });
    const facts: Facts = new Map();
    tree.set(path, facts);
    facts.set("mode", (stat.mode & 0o177777n).toString(8));
    facts.set("owner", `${stat.uid}:${stat.gid}`);
    if (options.anyTime?.(path) !== true) facts.set("mtime", String(stat.mtimeNs));
    if (stat.isDirectory()) {
      if (options.directoryLinks === true) facts.set("links", String(stat.nlink));
      for (const name of readdirSync(full, { encoding: "buffer" })) {
        todo.push((path === "" ? "" : `${path}/`) + Buffer.from(name).toString("latin1"));
      }
      continue;
    }
    facts.set("links", String(stat.nlink));
    const group = names.get(`${stat.ino}`);
    if (group === undefined) names.set(`${stat.ino}`, [path]);
    else group.push(path);
    if (stat.isFile()) {
      facts.set("size", String(stat.size));
      if (options.contents !== false) facts.set("sha256", sha256(await readFile(full)));
    }
    if (stat.isSymbolicLink()) {
      facts.set("target", Buffer.from(readlinkSync(full, { encoding: "buffer" })).toString("latin1"));
    }
    if (stat.isCharacterDevice() || stat.isBlockDevice()) facts.set("device", String(stat.rdev));
  }
  for (const group of names.values()) {
    if (group.length > 1)
      for (const path of group) tree.get(path)?.set("hardlinks", group.toSorted().join(" "));
  }
  await readXattrs(root, tree);
  return tree;
}

/** Reads all extended attributes with `getfattr`, which prints names of files with octal escapes. */
async function readXattrs(root: string, tree: ReadonlyMap<string, Facts>): Promise<void> {
  const argv = ["getfattr", "-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", root];
  const child = Bun.spawn(argv, { env: { ...cleanEnvironment }, stdout: "pipe", stderr: "pipe" });
  const [output, complaints] = await Promise.all([
    new Response(child.stdout).bytes(),
    new Response(child.stderr).text(),
  ]);
  if ((await child.exited) !== 0) throw new Error(`getfattr failed: ${complaints}`);
  let facts: Facts | undefined;
  for (const line of Buffer.from(output).toString("latin1").split("\n")) {
    const header = /^# file: (.*)$/.exec(line);
    if (header !== null) {
      const path = unescaped(header[1] ?? "").slice(Buffer.from(root).toString("latin1").length);
      facts = tree.get(path.replace(/^\//, ""));
    } else if (line !== "") {
      const equals = line.indexOf("=");
      const name = equals < 0 ? line : line.slice(0, equals);
      facts?.set(`xattr ${unescaped(name)}`, equals < 0 ? "" : line.slice(equals + 1));
    }
  }
}

function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function bytesOf(root: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(root), Buffer.from(path === "" ? "" : `/${path}`, "latin1")]);
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function shown(path: string): string {
  return path === "" ? "(root)" : JSON.stringify(path);
}
