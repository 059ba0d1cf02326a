import { z } from "zod";
import { unusable } from "./chunk-table.ts";
import { PaxScope } from "./tar-pax.ts";
import type { TarMember } from "./tar-reader.ts";

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const text = z.string().max(64 * 1024);

/** An entry of an eStargz or zstd:chunked table. A file's later chunks are entries of the type `chunk` behind it. */
const entrySchema = z.object({
  name: text,
  type: z.enum(["dir", "reg", "symlink", "hardlink", "char", "block", "fifo", "chunk"]),
  size: count.default(0),
  modtime: text.nullish(),
  linkName: text.nullish(),
  /** As in the header of a tar, setuid and its like included. */
  mode: z.number().int().default(0),
  uid: z.number().int().default(0),
  gid: z.number().int().default(0),
  devMajor: z.number().int().default(0),
  devMinor: z.number().int().default(0),
  /** Values are base64. */
  xattrs: z.record(z.string(), text).nullish(),
  /** SHA-256 of the whole file. */
  digest: text.nullish(),
  /** Of the gzip member or zstd frame with the chunk, in the layer. */
  offset: count.default(0),
  /** Bytes of other chunks that come out of the member before this one. */
  innerOffset: count.default(0),
  /** Where the chunk lies in the file, and its bytes; 0: to the end of the file. */
  chunkOffset: count.default(0),
  chunkSize: count.default(0),
  chunkDigest: text.nullish(),
  /** `zeros`: a hole. */
  chunkType: text.nullish(),
});

export type ChunkTableEntry = z.infer<typeof entrySchema>;

/** @throws {IndexError} `bad_layer` */
export function parseChunkTableEntry(value: unknown): ChunkTableEntry {
  const entry = entrySchema.safeParse(value);
  if (entry.success) return entry.data;
  const issue = entry.error.issues[0];
  throw unusable(`an entry's ${issue?.path.join(".") ?? "text"} is wrong: ${issue?.message ?? ""}`);
}

const flags = { reg: "0", hardlink: "1", symlink: "2", char: "3", block: "4", dir: "5", fifo: "6" } as const;

/** Where the contents of a file are, of chunks one after another; see `TarMember`. */
export type MemberData = Pick<TarMember, "dataOffset" | "dataBytes" | "segments">;

/** The member of a tar that an entry describes. @throws {IndexError} `bad_layer` for what its JSON could not hold */
export function memberOf(entry: ChunkTableEntry, data: MemberData): TarMember {
  const time = parseTime(entry.modtime ?? "");
  const pax = new PaxScope();
  const xattrs = Object.entries(entry.xattrs ?? {});
  if (xattrs.length > 0)
    pax.setLocal(
      xattrs.map(([name, value]) => [
        `SCHILY.xattr.${bytesOf(name)}`,
        Buffer.from(value, "base64").toString("latin1"),
      ]),
    );
  return {
    name: bytesOf(entry.name),
    link: bytesOf(entry.linkName ?? ""),
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
