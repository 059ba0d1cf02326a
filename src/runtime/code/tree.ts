import { RuntimeError } from "../error.ts";

/** What one archive of code may ask of us, beside its bytes. It is hostile until shown otherwise. */
export const codeEntriesMax = 50_000;
const pathBytesMax = 1024;
const nameBytesMax = 255;
const depthMax = 64;
const linksMax = 40;
/** Parts of paths that are looked at for all symbolic links together. */
const stepsMax = 500_000;

type Entry =
  | { readonly kind: "directory" | "implied" | "file" }
  | { readonly kind: "link"; readonly target: string };

/** An entry that may be made. */
export interface AddedEntry {
  /** Relative, clean. */
  readonly path: string;
  /** Directories above it that no entry before it named, outermost first. */
  readonly parents: readonly string[];
}

/**
 * The tree that an archive of code describes, checked entry by entry before anything is made: names, double ones, what
 * lies below a file or a link, and, once all are known, where symbolic links lead.
 */
export class CodeTree {
  readonly #entries = new Map<string, Entry>();
  #steps = 0;

  /**
   * Takes an entry up; `undefined` for the root itself, and for a directory that was implied before.
   * @param rawName its bytes as latin1 text, as a tar reader gives it
   * @throws RuntimeError `code`
   */
  add(rawName: string, kind: "directory" | "file"): AddedEntry | undefined;
  add(rawName: string, kind: "link", rawTarget: string): AddedEntry | undefined;
  add(rawName: string, kind: "directory" | "file" | "link", rawTarget = ""): AddedEntry | undefined {
    const path = cleanPath(rawName);
    if (path === "") {
      if (kind === "directory") return undefined;
      throw refusedEntry(rawName, "it has no name");
    }
    const known = this.#entries.get(path);
    if (known?.kind === "implied" && kind === "directory") {
      this.#entries.set(path, { kind });
      return undefined;
    }
    if (known !== undefined) throw refusedEntry(rawName, "it is there twice");
    const parents = this.#imply(path, rawName);
    this.#entries.set(path, kind === "link" ? { kind, target: cleanTarget(rawName, rawTarget) } : { kind });
    this.#count();
    return { path, parents };
  }

  /** The symbolic links, all of which lead to places of the tree. @throws RuntimeError `code` */
  links(): { readonly path: string; readonly target: string }[] {
    const links = [...this.#entries].flatMap(([path, entry]) =>
      entry.kind === "link" ? [{ path, target: entry.target }] : [],
    );
    for (const { path, target } of links) this.#follow(path, target);
    return links;
  }

  #imply(path: string, rawName: string): string[] {
    const parents: string[] = [];
    for (let slash = path.lastIndexOf("/"); slash > 0; slash = path.lastIndexOf("/", slash - 1)) {
      const parent = path.slice(0, slash);
      const known = this.#entries.get(parent);
      if (known?.kind === "file" || known?.kind === "link")
        throw refusedEntry(rawName, `it lies below ${shown(parent)}, which is a ${known.kind}`);
      if (known !== undefined) break;
      parents.unshift(parent);
    }
    for (const parent of parents) {
      this.#entries.set(parent, { kind: "implied" });
      this.#count();
    }
    return parents;
  }

  #count(): void {
    if (this.#entries.size > codeEntriesMax) throw refused(`it has more than ${codeEntriesMax} entries`);
  }

  /** Goes the way that the kernel would go. What leads to nothing, or round and round, leads nowhere else. */
  #follow(path: string, target: string): void {
    const found = path.split("/").slice(0, -1);
    const parts = target.split("/").reverse();
    for (let links = 0; parts.length > 0; ) {
      const part = parts.pop() as string;
      if (part === "" || part === ".") continue;
      this.#steps += 1;
      if (this.#steps > stepsMax) throw refused("its symbolic links lead through too many directories");
      if (part === "..") {
        if (found.pop() === undefined)
          throw refusedEntry(latin1(path), `it is a symbolic link that leaves the folder: ${shown(target)}`);
        continue;
      }
      const entry = this.#entries.get([...found, part].join("/"));
      if (entry === undefined || entry.kind === "file") return;
      if (entry.kind !== "link") {
        found.push(part);
        continue;
      }
      links += 1;
      if (links > linksMax) return;
      parts.push(...entry.target.split("/").reverse());
    }
  }
}

/** A name without `.` and empty parts; empty: the root. */
function cleanPath(rawName: string): string {
  if (rawName.length > pathBytesMax)
    throw refusedEntry(rawName, `its path is longer than ${pathBytesMax} bytes`);
  if (rawName.startsWith("/")) throw refusedEntry(rawName, "its path is absolute");
  const parts = text(rawName, rawName)
    .split("/")
    .filter((part) => part !== "" && part !== ".");
  if (parts.includes("..")) throw refusedEntry(rawName, "it has `..` in its path");
  if (parts.length > depthMax) throw refusedEntry(rawName, `it lies deeper than ${depthMax} directories`);
  if (parts.some((part) => Buffer.byteLength(part) > nameBytesMax))
    throw refusedEntry(rawName, `a name in it is longer than ${nameBytesMax} bytes`);
  return parts.join("/");
}

function cleanTarget(rawName: string, rawTarget: string): string {
  if (rawTarget === "") throw refusedEntry(rawName, "it is a symbolic link to nothing");
  if (rawTarget.length > pathBytesMax)
    throw refusedEntry(rawName, `it links to a path that is longer than ${pathBytesMax} bytes`);
  const target = text(rawTarget, rawName);
  if (target.startsWith("/"))
    throw refusedEntry(rawName, `it is a symbolic link to an absolute path: ${shown(target)}`);
  return target;
}

/** @throws RuntimeError `code` for what is no path of ours */
function text(raw: string, rawName: string): string {
  if (raw.includes("\0")) throw refusedEntry(rawName, "it has a NUL in its name");
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(latin1Bytes(raw));
  } catch {
    throw refusedEntry(rawName, "its name is not UTF-8");
  }
}

function latin1Bytes(raw: string): Buffer {
  return Buffer.from(raw, "latin1");
}

function latin1(path: string): string {
  return Buffer.from(path).toString("latin1");
}

/** In quotes, control characters escaped, cut when long. */
function shown(path: string): string {
  return `${JSON.stringify(path.slice(0, 200))}${path.length > 200 ? "…" : ""}`;
}

export function refusedEntry(rawName: string, why: string): RuntimeError {
  return refused(`its entry ${shown(latin1Bytes(rawName).toString("utf8"))} is refused: ${why}`);
}

export function refused(why: string, cause?: unknown): RuntimeError {
  return new RuntimeError("code", `the archive of code cannot be used: ${why}`, {
    next: "Deploy it again with oci-node's own client, which leaves such things out or names them.",
    ...(cause === undefined ? {} : { cause }),
  });
}
