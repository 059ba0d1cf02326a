import { IndexError } from "./error.ts";

/** Bytes of a tar block: headers are one, contents are padded to whole ones. */
export const tarBlockBytes = 512;

/**
 * A header block as it stands, before pax records and GNU long names. Texts are latin1, cut at the first NUL.
 * POSIX.1-1988 ustar, GNU tar's format and the v7 layout before them.
 */
export interface TarHeader {
  readonly name: string;
  readonly link: string;
  /** The type flag as a character; `"\0"` of v7 archives stays what it is. */
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

const checksumAt = 148;
const checksumBytes = 8;

/** Whether all bytes are zero: two such blocks end an archive. */
export function isZeroBlock(block: Uint8Array): boolean {
  for (let at = 0; at < tarBlockBytes; at += 1) if (block[at] !== 0) return false;
  return true;
}

/**
 * Reads a header block of 512 bytes.
 *
 * @param where for messages: the block's place in the stream
 * @throws {IndexError} `bad_tar` when the checksum or a number is wrong
 */
export function parseTarHeader(block: Buffer, where: number): TarHeader {
  checkChecksum(block, where);
  const extended = magicAt(block);
  const ustar = extended && block[262] === 0;
  const devices = ustar || (extended && block[262] === 0x20);
  const name = tarText(block, 0, 100);
  const prefix = ustar ? tarText(block, 345, block.toString("latin1", 508, 512) === "tar\0" ? 131 : 155) : "";
  const number = (field: string, start: number, length: number): number => {
    const value = parseTarNumber(block, start, length);
    if (value === undefined) throw badHeader(where, `its ${field} is not a number, or out of range`);
    return value;
  };
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    link: tarText(block, 157, 100),
    type: String.fromCharCode(block[156] ?? 0),
    mode: number("mode", 100, 8),
    uid: number("uid", 108, 8),
    gid: number("gid", 116, 8),
    size: number("size", 124, 12),
    mtime: number("time", 136, 12),
    deviceMajor: devices ? number("device number", 329, 8) : 0,
    deviceMinor: devices ? number("device number", 337, 8) : 0,
  };
}

/**
 * A number field: octal digits between blanks or NULs, or GNU's base-256 (first bit set; big-endian, two's complement).
 * An empty field is 0. `undefined` when it is no number or not exact in a double.
 */
export function parseTarNumber(block: Uint8Array, start: number, length: number): number | undefined {
  const end = start + length;
  const first = block[start] ?? 0;
  let value = 0;
  if ((first & 0x80) !== 0) {
    const flip = (first & 0x40) === 0 ? 0 : 0xff;
    value = (first ^ flip) & 0x7f;
    for (let at = start + 1; at < end; at += 1) value = value * 256 + ((block[at] ?? 0) ^ flip);
    if (flip !== 0) value = -1 - value;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  let at = start;
  while (at < end && (block[at] === 0x20 || block[at] === 0)) at += 1;
  for (; at < end; at += 1) {
    const byte = block[at] ?? 0;
    if (byte === 0x20 || byte === 0) break;
    if (byte < 0x30 || byte > 0x37) return undefined;
    value = value * 8 + byte - 0x30;
  }
  return value;
}

/** Text up to the first NUL, as latin1. */
export function tarText(block: Buffer, start: number, length: number): string {
  let end = start;
  while (end < start + length && block[end] !== 0) end += 1;
  return end === start ? "" : block.toString("latin1", start, end);
}

/** Whether `ustar` stands where POSIX and GNU tar put it; a NUL (POSIX) or a blank (GNU) follows. */
function magicAt(block: Uint8Array): boolean {
  return (
    block[257] === 0x75 &&
    block[258] === 0x73 &&
    block[259] === 0x74 &&
    block[260] === 0x61 &&
    block[261] === 0x72
  );
}

function checkChecksum(block: Uint8Array, where: number): void {
  const stored = parseTarNumber(block, checksumAt, checksumBytes);
  const blanks = 0x20 * checksumBytes;
  let unsigned = blanks;
  for (let at = 0; at < checksumAt; at += 1) unsigned += block[at] as number;
  for (let at = checksumAt + checksumBytes; at < tarBlockBytes; at += 1) unsigned += block[at] as number;
  if (stored === unsigned) return;
  // Some old programs summed signed bytes.
  let signed = unsigned;
  for (let at = 0; at < tarBlockBytes; at += 1) {
    const inField = at >= checksumAt && at < checksumAt + checksumBytes;
    if (!inField && (block[at] ?? 0) > 127) signed -= 256;
  }
  if (stored !== signed) throw badHeader(where, "its checksum is wrong");
}

function badHeader(where: number, why: string): IndexError {
  return new IndexError("bad_tar", `the tar header at byte ${where} cannot be read: ${why}`, {
    next: "Push the image again.",
  });
}
