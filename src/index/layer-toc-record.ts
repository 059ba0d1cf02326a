import { blockBytes, type TocEntry } from "./types.ts";

/*
 * One record: u32 length of the rest; then
 *
 *    0  1  type (its place in `types`)     1  1  flags: bit 0 link, bit 1 device, bit 2 xattrs
 *    2  2  mode        4  4  uid           8  4  gid        12  4  mtime nanoseconds
 *   16  8  mtime seconds, 24 8 size, 32 8 blob offset: IEEE doubles that hold whole numbers, exact up to 2^53
 *   40  2  path length, path
 *   link: u16 length, text    device: u32 major, u32 minor
 *   xattrs: u16 count, each u16 name length, name, u32 value length, value
 */
const types = ["file", "dir", "symlink", "hardlink", "char", "block", "fifo", "whiteout", "opaque"] as const;
const typeNumbers = new Map<TocEntry["type"], number>(types.map((type, at) => [type, at]));
const fixedBytes = 40;
const hasLink = 1;
const hasDevice = 2;
const hasXattrs = 4;

/** A buffer that grows: `bytes[0 … length)` is used. */
export interface TocRecordBuffer {
  bytes: Buffer;
  length: number;
}

/** Appends the record of `entry`, its length included. Path, link and names must be latin1 and shorter than 64 KiB. */
export function encodeTocEntry(entry: TocEntry, into: TocRecordBuffer): void {
  const xattrs = entry.xattrs ?? [];
  const link = entry.link;
  const device = entry.deviceMajor !== undefined || entry.deviceMinor !== undefined;
  let need =
    4 + fixedBytes + 2 + entry.path.length + (link === undefined ? 0 : 2 + link.length) + (device ? 8 : 0);
  if (xattrs.length > 0) for (const [name, value] of xattrs) need += 6 + name.length + value.length;
  if (xattrs.length > 0) need += 2;
  reserve(into, need);

  const bytes = into.bytes;
  const start = into.length + 4;
  bytes.writeUInt32LE(need - 4, into.length);
  bytes[start] = typeNumbers.get(entry.type) ?? 0;
  bytes[start + 1] =
    (link === undefined ? 0 : hasLink) | (device ? hasDevice : 0) | (xattrs.length > 0 ? hasXattrs : 0);
  bytes.writeUInt16LE(entry.mode, start + 2);
  bytes.writeUInt32LE(entry.uid, start + 4);
  bytes.writeUInt32LE(entry.gid, start + 8);
  bytes.writeUInt32LE(entry.mtimeNanos, start + 12);
  bytes.writeDoubleLE(entry.mtimeSeconds, start + 16);
  bytes.writeDoubleLE(entry.size, start + 24);
  bytes.writeDoubleLE(entry.blobOffset, start + 32);
  let at = putText(bytes, start + fixedBytes, entry.path);
  if (link !== undefined) at = putText(bytes, at, link);
  if (device) {
    bytes.writeUInt32LE(entry.deviceMajor ?? 0, at);
    bytes.writeUInt32LE(entry.deviceMinor ?? 0, at + 4);
    at += 8;
  }
  if (xattrs.length > 0) {
    at = bytes.writeUInt16LE(xattrs.length, at);
    for (const [name, value] of xattrs) {
      at = putText(bytes, at, name);
      at = bytes.writeUInt32LE(value.length, at);
      bytes.set(value, at);
      at += value.length;
    }
  }
  into.length += need;
}

/** Reads the record in `bytes[start … end)`; `undefined` when those bytes are none. Values are copies. */
export function decodeTocEntry(bytes: Buffer, start: number, end: number): TocEntry | undefined {
  if (end - start < fixedBytes + 2 || end > bytes.length) return undefined;
  const type = types[bytes[start] ?? 255];
  if (type === undefined) return undefined;
  const flags = bytes[start + 1] ?? 0;
  const cursor = { bytes, at: start + fixedBytes, end };
  const entry: { -readonly [Key in keyof TocEntry]: TocEntry[Key] } = {
    path: takeText(cursor),
    type,
    mode: bytes.readUInt16LE(start + 2),
    uid: bytes.readUInt32LE(start + 4),
    gid: bytes.readUInt32LE(start + 8),
    mtimeSeconds: bytes.readDoubleLE(start + 16),
    mtimeNanos: bytes.readUInt32LE(start + 12),
    size: bytes.readDoubleLE(start + 24),
    blobOffset: bytes.readDoubleLE(start + 32),
  };
  if ((flags & hasLink) !== 0) entry.link = takeText(cursor);
  if ((flags & hasDevice) !== 0) {
    entry.deviceMajor = takeNumber(cursor, 4);
    entry.deviceMinor = takeNumber(cursor, 4);
  }
  if ((flags & hasXattrs) !== 0) entry.xattrs = takeXattrs(cursor);
  return cursor.at === end && hasSoundNumbers(entry) ? entry : undefined;
}

/** A double can be a fraction or none at all. */
function hasSoundNumbers({ type, mode, mtimeSeconds, mtimeNanos, size, blobOffset }: TocEntry): boolean {
  const whole = [mtimeSeconds, size, blobOffset].every(Number.isSafeInteger);
  const placed = blobOffset >= 0 && blobOffset % blockBytes === 0;
  const needsPlace = type === "file" && size > 0;
  const inRange = (mode & ~0o7777) === 0 && mtimeNanos < 1e9 && size >= 0;
  return whole && inRange && (needsPlace ? placed : blobOffset === -1);
}

interface Cursor {
  readonly bytes: Buffer;
  readonly end: number;
  /** Past `end` once something did not fit. */
  at: number;
}

function takeXattrs(cursor: Cursor): [string, Uint8Array][] {
  const xattrs: [string, Uint8Array][] = [];
  for (let left = takeNumber(cursor, 2); left > 0 && cursor.at < cursor.end; left -= 1) {
    const name = takeText(cursor);
    const length = takeNumber(cursor, 4);
    xattrs.push([name, new Uint8Array(cursor.bytes.subarray(cursor.at, cursor.at + length))]);
    cursor.at += length;
  }
  return xattrs;
}

function takeText(cursor: Cursor): string {
  const length = takeNumber(cursor, 2);
  const start = cursor.at;
  cursor.at += length;
  return cursor.at <= cursor.end ? cursor.bytes.toString("latin1", start, cursor.at) : "";
}

function takeNumber(cursor: Cursor, width: 2 | 4): number {
  const start = cursor.at;
  cursor.at += width;
  if (cursor.at > cursor.end) return 0;
  return width === 2 ? cursor.bytes.readUInt16LE(start) : cursor.bytes.readUInt32LE(start);
}

function putText(bytes: Buffer, at: number, text: string): number {
  bytes.writeUInt16LE(text.length, at);
  bytes.write(text, at + 2, "latin1");
  return at + 2 + text.length;
}

function reserve(buffer: TocRecordBuffer, more: number): void {
  if (buffer.length + more <= buffer.bytes.length) return;
  const grown = Buffer.allocUnsafe(Math.max(buffer.bytes.length * 2, buffer.length + more));
  buffer.bytes.copy(grown, 0, 0, buffer.length);
  buffer.bytes = grown;
}
