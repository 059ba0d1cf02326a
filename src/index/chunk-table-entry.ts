import { unusable } from "./chunk-table.ts";
import type { IndexError } from "./error.ts";
import { PaxScope } from "./tar-pax.ts";
import type { TarMember } from "./tar-reader.ts";

const types = ["dir", "reg", "symlink", "hardlink", "char", "block", "fifo", "chunk"] as const;

/** An entry of an eStargz or zstd:chunked table. A file's later chunks are entries of the type `chunk` behind it. */
export interface ChunkTableEntry {
  readonly name: string;
  readonly type: (typeof types)[number];
  readonly size: number;
  readonly modtime: string;
  readonly linkName: string;
  /** As in the header of a tar, setuid and its like included. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly devMajor: number;
  readonly devMinor: number;
  /** Values are base64. */
  readonly xattrs: readonly (readonly [name: string, value: string])[];
  /** SHA-256 of the whole file. */
  readonly digest: string;
  /** Of the gzip member or zstd frame with the chunk, in the layer. */
  readonly offset: number;
  /** Bytes of other chunks that come out of the member before this one. */
  readonly innerOffset: number;
  /** Where the chunk lies in the file, and its bytes; 0: to the end of the file. */
  readonly chunkOffset: number;
  readonly chunkSize: number;
  readonly chunkDigest: string;
  /** `zeros`: a hole. */
  readonly chunkType: string;
}

/**
 * Reads an entry. By hand: it is done a million times for a layer, and a schema took half of the time.
 *
 * @throws {IndexError} `bad_layer`
 */
export function parseChunkTableEntry(value: unknown): ChunkTableEntry {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw unusable("an entry is no object");
  const from = value as Readonly<Record<string, unknown>>;
  const type = types.find((known) => known === from["type"]);
  if (type === undefined) throw wrong("type");
  return {
    name: textOf(from, "name"),
    type,
    size: numberOf(from, "size"),
    modtime: textOf(from, "modtime"),
    linkName: textOf(from, "linkName"),
    mode: numberOf(from, "mode"),
    uid: numberOf(from, "uid"),
    gid: numberOf(from, "gid"),
    devMajor: numberOf(from, "devMajor"),
    devMinor: numberOf(from, "devMinor"),
    xattrs: xattrsOf(from["xattrs"]),
    digest: textOf(from, "digest"),
    offset: numberOf(from, "offset"),
    innerOffset: numberOf(from, "innerOffset"),
    chunkOffset: numberOf(from, "chunkOffset"),
    chunkSize: numberOf(from, "chunkSize"),
    chunkDigest: textOf(from, "chunkDigest"),
    chunkType: textOf(from, "chunkType"),
  };
}

/** A whole number from 0 on; 0 when it is left out, as Go does it. */
function numberOf(from: Readonly<Record<string, unknown>>, key: string): number {
  const value = from[key];
  if (value === undefined || value === null) return 0;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw wrong(key);
  return value;
}

function textOf(from: Readonly<Record<string, unknown>>, key: string): string {
  const value = from[key];
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") throw wrong(key);
  return value;
}

function xattrsOf(value: unknown): [string, string][] {
  if (value === undefined || value === null) return [];
  if (typeof value !== "object" || Array.isArray(value)) throw wrong("xattrs");
  return Object.entries(value).map(([name, text]) => {
    if (typeof text !== "string") throw wrong("xattrs");
    return [name, text];
  });
}

function wrong(key: string): IndexError {
  return unusable(`an entry's ${key} is wrong`);
}

const flags = { reg: "0", hardlink: "1", symlink: "2", char: "3", block: "4", dir: "5", fifo: "6" } as const;

/** Where the contents of a file are, of chunks one after another; see `TarMember`. */
export type MemberData = Pick<TarMember, "dataOffset" | "dataBytes" | "segments">;

const noPax = new PaxScope();

/** The member of a tar that an entry describes. @throws {IndexError} `bad_layer` for what its JSON could not hold */
export function memberOf(entry: ChunkTableEntry, data: MemberData): TarMember {
  const time = parseTime(entry.modtime);
  let pax = noPax;
  if (entry.xattrs.length > 0) {
    pax = new PaxScope();
    pax.setLocal(
      entry.xattrs.map(([name, value]) => [
        `SCHILY.xattr.${bytesOf(name)}`,
        Buffer.from(value, "base64").toString("latin1"),
      ]),
    );
  }
  return {
    name: bytesOf(entry.name),
    link: bytesOf(entry.linkName),
    type: flags[entry.type as keyof typeof flags],
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    size: entry.type === "reg" ? entry.size : 0,
    mtimeSeconds: time.seconds,
    mtimeNanos: time.nanos,
    deviceMajor: entry.devMajor,
    deviceMinor: entry.devMinor,
    pax,
    ...data,
  };
}

/**
 * A name's bytes as latin1 text. JSON has no place for bytes that are not UTF-8: writers put U+FFFD there, so that a name
 * with it may be another than it was.
 */
function bytesOf(name: string): string {
  if (/^[\0-\x7f]*$/.test(name)) return name;
  const bytes = Buffer.from(name, "utf8").toString("latin1");
  if (bytes.includes("\xef\xbf\xbd")) throw unusable("a name in it was not UTF-8, and is lost");
  return bytes;
}

/** A time as Go writes it in JSON (RFC 3339, up to nanoseconds); eStargz has whole seconds, and none for 1970. */
function parseTime(value: string): { seconds: number; nanos: number } {
  if (value === "") return { seconds: 0, nanos: 0 };
  const match = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/.exec(
    value,
  );
  if (match === null) throw unusable("a time in it cannot be read");
  const [year = 0, month = 0, day = 0, hours = 0, minutes = 0, seconds = 0] = match.slice(1, 7).map(Number);
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hours, minutes, seconds);
  const ahead = (match[8] === "-" ? -60 : 60) * (Number(match[9] ?? 0) * 60 + Number(match[10] ?? 0));
  return { seconds: date.getTime() / 1000 - ahead, nanos: Number((match[7] ?? "").padEnd(9, "0")) };
}
