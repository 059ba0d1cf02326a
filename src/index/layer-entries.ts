import { checkLimit, type IndexLimits } from "./limits.ts";
import { badName, cleanName, quoteName, readLayerPath } from "./tar-name.ts";
import type { TarMember } from "./tar-reader.ts";
import { tocXattrs } from "./tar-xattrs.ts";
import { blockBytes, type TocEntry } from "./types.ts";

/** Takes runs of file data: where they are in the tar stream, where they go in the blob, how many bytes. */
export interface ExtentSink {
  addExtent(tarOffset: number, blobOffset: number, length: number): void;
}

const idMax = 2 ** 32 - 1;
const types: Readonly<Record<string, TocEntry["type"]>> = {
  "0": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "char",
  "4": "block",
  "5": "dir",
  "6": "fifo",
};
/** What lazy-pull builders add to a layer for themselves; not a part of the image's tree. */
const builderFiles = new Set(["stargz.index.json", ".prefetch.landmark", ".no.prefetch.landmark"]);

/**
 * Turns the members of a layer's tar into entries of its table of contents, and gives each file its place in the
 * layer's aligned blob: in tar order, each at the next 4 KiB boundary, a sparse file with its holes.
 */
export class LayerEntries {
  readonly #limits: IndexLimits;
  readonly #onEntry: (entry: TocEntry) => void;
  readonly #extents: ExtentSink;
  #members = 0;
  #blobBytes = 0;

  constructor(limits: IndexLimits, extents: ExtentSink, onEntry: (entry: TocEntry) => void) {
    this.#limits = limits;
    this.#extents = extents;
    this.#onEntry = onEntry;
  }

  /** Bytes of the blob so far: a multiple of 4096. */
  get blobBytes(): number {
    return this.#blobBytes;
  }

  /** @throws {IndexError} `bad_tar`, `limit_exceeded` */
  add(member: TarMember): void {
    this.#members += 1;
    checkLimit(this.#limits, "entriesMax", this.#members, () => "the entries of the layer");
    const meaning = readLayerPath(cleanName(member.name, this.#limits));
    if (meaning.kind === "ignored") return;
    const { path } = meaning;
    if (meaning.kind !== "entry") {
      this.#onEntry(markerEntry(meaning.kind, path));
      return;
    }
    const type = types[member.type];
    if (type === undefined) throw badName(member.name, `its type ${JSON.stringify(member.type)} is unknown`);
    if (path === "" && type !== "dir") throw badName(member.name, "the root must be a folder");
    if (type === "file" && builderFiles.has(path)) return;
    const xattrs = tocXattrs(member, this.#limits);
    const base = {
      path,
      type,
      mode: member.mode & 0o7777,
      uid: checkId(member.name, "user", member.uid),
      gid: checkId(member.name, "group", member.gid),
      mtimeSeconds: member.mtimeSeconds,
      mtimeNanos: member.mtimeNanos,
      size: 0,
      blobOffset: -1,
      ...(xattrs.length === 0 ? {} : { xattrs }),
    };
    this.#onEntry(this.#withContent(base, member));
  }

  #withContent(base: TocEntry, member: TarMember): TocEntry {
    switch (base.type) {
      case "file":
        return { ...base, size: member.size, blobOffset: this.#place(member) };
      case "symlink":
        return { ...base, size: member.link.length, link: checkTarget(member, this.#limits) };
      case "hardlink":
        return { ...base, link: hardlinkTarget(base.path, member, this.#limits) };
      case "char":
      case "block":
        return { ...base, ...checkDevice(member) };
      default:
        return base;
    }
  }

  /** Gives a file its place in the blob; -1 for an empty one. */
  #place(member: TarMember): number {
    if (member.size === 0) return -1;
    const start = this.#blobBytes;
    const end = start + member.size;
    checkLimit(this.#limits, "blobBytesMax", end, () => `the layer's files with ${quoteName(member.name)}`);
    this.#blobBytes = Math.ceil(end / blockBytes) * blockBytes;
    let tarOffset = member.dataOffset;
    for (const { offset, length } of member.segments ?? [{ offset: 0, length: member.dataBytes }]) {
      if (length > 0) this.#extents.addExtent(tarOffset, start + offset, length);
      tarOffset += length;
    }
    return start;
  }
}

function markerEntry(type: "whiteout" | "opaque", path: string): TocEntry {
  return { path, type, mode: 0, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0, size: 0, blobOffset: -1 };
}

function checkId(name: string, whose: string, id: number): number {
  if (id < 0 || id > idMax) throw badName(name, `its ${whose} id ${id} is out of range`);
  return id;
}

function checkTarget(member: TarMember, limits: IndexLimits): string {
  if (member.link === "" || member.link.includes("\0"))
    throw badName(member.name, "it is a symlink to no name");
  checkLimit(
    limits,
    "pathBytesMax",
    member.link.length + 1,
    () => `the target of the symlink ${quoteName(member.name)}`,
  );
  return member.link;
}

function hardlinkTarget(path: string, member: TarMember, limits: IndexLimits): string {
  const target = cleanName(member.link, limits);
  if (target === "" || target === path)
    throw badName(member.name, "it is a hard link to the root or to itself");
  return target;
}

function checkDevice(member: TarMember): { deviceMajor: number; deviceMinor: number } {
  const { deviceMajor, deviceMinor } = member;
  // Linux: 12 bits and 20 bits (include/linux/kdev_t.h).
  const fits = deviceMajor >= 0 && deviceMajor < 2 ** 12 && deviceMinor >= 0 && deviceMinor < 2 ** 20;
  if (!fits) throw badName(member.name, `its device number ${deviceMajor}:${deviceMinor} is out of range`);
  return { deviceMajor, deviceMinor };
}
