import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { IndexError, writeError } from "./error.ts";
import { decodeTocEntry, encodeTocEntry, type TocRecordBuffer } from "./layer-toc-record.ts";
import type { TocEntry } from "./types.ts";

/*
 * A layer's table of contents on disk: little-endian, streamed on both ways.
 *
 *   header   16 bytes: magic "OCITOC01", version (u32), zero (u32)
 *   records  each a u32 of its length and that many bytes (see layer-toc-record.ts)
 *   footer   48 bytes: magic "OCITOCND", number of records (u64), SHA-256 of everything before the footer
 */
const headerMagic = "OCITOC01";
const footerMagic = "OCITOCND";
const version = 1;
const headerBytes = 16;
const footerBytes = 48;
const bufferBytes = 1024 * 1024;
/** No record is longer: bounds what a broken length can make a reader allocate. */
const recordBytesMax = 64 * 1024 * 1024;

/** Writes a table of contents in one pass. A file whose writer was not finished is refused by {@link openToc}. */
export class TocWriter {
  readonly #path: string;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #fd: number;
  #entries = 0;
  #written = 0;
  #buffer: TocRecordBuffer;

  private constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
    this.#buffer = { bytes: Buffer.allocUnsafe(bufferBytes), length: 0 };
    this.#buffer.bytes.fill(0, 0, headerBytes);
    this.#buffer.bytes.write(headerMagic, 0, "latin1");
    this.#buffer.bytes.writeUInt32LE(version, 8);
    this.#buffer.length = headerBytes;
  }

  /** Makes the file, or empties it. */
  static create(path: string): TocWriter {
    return new TocWriter(path, openSync(path, "w", 0o644));
  }

  get entries(): number {
    return this.#entries;
  }

  /** Bytes so far, written or about to be. */
  get sizeBytes(): number {
    return this.#written + this.#buffer.length;
  }

  /** Adds one entry; the file is written in pieces of a megabyte, synchronously. */
  add(entry: TocEntry): void {
    encodeTocEntry(entry, this.#buffer);
    this.#entries += 1;
    if (this.#buffer.length >= bufferBytes / 2) this.#flush();
  }

  /** Writes the footer and closes the file. Nothing is synced: the store that takes the file in does that. */
  finish(): void {
    this.#flush();
    const footer = Buffer.alloc(footerBytes);
    footer.write(footerMagic, 0, "latin1");
    footer.writeBigUInt64LE(BigInt(this.#entries), 8);
    footer.set(this.#hasher.digest(), 16);
    this.#write(footer);
    this.close();
  }

  /** Closes the file as it is; does nothing when it is closed already. */
  close(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }

  #flush(): void {
    const pending = this.#buffer.bytes.subarray(0, this.#buffer.length);
    this.#hasher.update(pending);
    this.#write(pending);
    this.#written += pending.length;
    this.#buffer.length = 0;
  }

  #write(bytes: Uint8Array): void {
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
    } catch (error) {
      throw writeError(this.#path, error);
    }
  }
}

/** A table of contents on disk: iterate it as often as wanted, each time from the start, a megabyte in memory. */
export interface TocReader extends Iterable<TocEntry> {
  readonly path: string;
  /** Number of entries. */
  readonly entries: number;
}

/**
 * Opens a table of contents written by {@link TocWriter}. A file that is missing its end is refused here; a file whose
 * bytes changed is refused by the iteration, at the latest before it ends. No file descriptor stays open between
 * iterations.
 *
 * @param sha256 hex, of the whole file: one that has another is refused by the iteration, however sound it is
 * @throws {IndexError} `corrupt_index`, `not_found`
 */
export function openToc(path: string, sha256?: string): TocReader {
  const fd = openForReading(path);
  try {
    const size = fstatSync(fd).size;
    if (size < headerBytes + footerBytes) throw corrupt(path, "it is too short");
    const header = readExactly(fd, path, 0, headerBytes);
    if (header.toString("latin1", 0, 8) !== headerMagic) throw corrupt(path, "it does not begin as one");
    if (header.readUInt32LE(8) !== version) throw corrupt(path, "it has another version");
    const footer = readExactly(fd, path, size - footerBytes, footerBytes);
    if (footer.toString("latin1", 0, 8) !== footerMagic) throw corrupt(path, "its end is missing");
    const entries = Number(footer.readBigUInt64LE(8));
    return { path, entries, [Symbol.iterator]: () => iterate(path, size, entries, sha256) };
  } finally {
    closeSync(fd);
  }
}

function* iterate(
  path: string,
  size: number,
  entries: number,
  sha256: string | undefined,
): Generator<TocEntry, void, undefined> {
  const fd = openForReading(path);
  try {
    if (fstatSync(fd).size !== size) throw corrupt(path, "its size changed");
    const window = new RecordWindow(fd, path, size - footerBytes);
    let count = 0;
    for (; !window.atEnd; count += 1) {
      const length = window.need(4).readUInt32LE(window.start);
      if (length > recordBytesMax) throw corrupt(path, `record ${count} is too long`);
      const bytes = window.need(4 + length);
      const entry = decodeTocEntry(bytes, window.start + 4, window.start + 4 + length);
      if (entry === undefined) throw corrupt(path, `record ${count} makes no sense`);
      window.start += 4 + length;
      yield entry;
    }
    if (count !== entries) throw corrupt(path, "it holds another number of entries than it says");
    const footer = readExactly(fd, path, size - footerBytes, footerBytes);
    const { records, whole } = window.digests(footer);
    if (!footer.subarray(16).equals(records)) throw corrupt(path, "its checksum differs");
    if (sha256 !== undefined && whole !== sha256) throw corrupt(path, "it is another one than was verified");
  } finally {
    closeSync(fd);
  }
}

/** The part of the file that is in memory: `start` is the next unread byte of what `need` returned last. */
class RecordWindow {
  readonly #fd: number;
  readonly #path: string;
  readonly #recordsEnd: number;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #buffer = Buffer.allocUnsafe(bufferBytes);
  #end = 0;
  #position = headerBytes;
  start = 0;

  constructor(fd: number, path: string, recordsEnd: number) {
    this.#fd = fd;
    this.#path = path;
    this.#recordsEnd = recordsEnd;
    this.#hasher.update(readExactly(fd, path, 0, headerBytes));
  }

  get atEnd(): boolean {
    return this.start === this.#end && this.#position === this.#recordsEnd;
  }

  /** Of what was read, and of that with the file's end. */
  digests(footer: Buffer): { readonly records: Buffer; readonly whole: string } {
    const whole = this.#hasher.copy().update(footer).digest("hex");
    return { records: this.#hasher.digest(), whole };
  }

  /** A buffer with at least `length` bytes from `start` on. */
  need(length: number): Buffer {
    if (this.#end - this.start >= length) return this.#buffer;
    const kept = this.#buffer.subarray(this.start, this.#end);
    if (length > this.#buffer.length) this.#buffer = Buffer.concat([kept], length);
    else kept.copy(this.#buffer);
    this.start = 0;
    this.#end = kept.length;
    const more = Math.min(this.#buffer.length - this.#end, this.#recordsEnd - this.#position);
    if (this.#end + more < length) throw corrupt(this.#path, "a record is cut off");
    readInto(this.#fd, this.#path, this.#buffer, this.#end, more, this.#position);
    this.#hasher.update(this.#buffer.subarray(this.#end, this.#end + more));
    this.#end += more;
    this.#position += more;
    return this.#buffer;
  }
}

function openForReading(path: string): number {
  try {
    return openSync(path, "r");
  } catch (cause) {
    throw new IndexError("not_found", `the table of contents ${path} cannot be opened`, {
      cause,
      next: "Build the image again.",
    });
  }
}

function readExactly(fd: number, path: string, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  readInto(fd, path, bytes, 0, length, position);
  return bytes;
}

function readInto(
  fd: number,
  path: string,
  into: Buffer,
  at: number,
  length: number,
  position: number,
): void {
  for (let done = 0; done < length; ) {
    const got = readSync(fd, into, at + done, length - done, position + done);
    if (got === 0) throw corrupt(path, "it ends early");
    done += got;
  }
}

function corrupt(path: string, why: string): IndexError {
  return new IndexError("corrupt_index", `the table of contents ${path} cannot be used: ${why}`, {
    next: "Build the image again.",
  });
}
