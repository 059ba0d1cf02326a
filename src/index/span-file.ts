import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { IndexError, writeError } from "./error.ts";
import { type ExtentTable, type SpanTable, writeNumber } from "./span-table.ts";
import { type SpanKind, spanFile } from "./types.ts";

/** What a span file says of its layer. Sizes and offsets in bytes. */
export interface SpanHeader {
  readonly kind: SpanKind;
  readonly compressedBytes: number;
  readonly tarBytes: number;
  readonly blobBytes: number;
  readonly spanCount: number;
  readonly extentCount: number;
  readonly spansOffset: number;
  readonly extentsOffset: number;
  /** Of the packed table; 0: it is not packed. */
  readonly extentsBytes: number;
  readonly windowsOffset: number;
  readonly windowsBytes: number;
  /** `sha256:…` of the compressed layer. */
  readonly digest: string;
}

/** Writes a span file: windows as they come, then the tables, and the header last. Layout: `types.ts`. */
export class SpanFileWriter {
  readonly #path: string;
  #fd: number;
  #windowsBytes = 0;

  private constructor(path: string, fd: number) {
    this.#path = path;
    this.#fd = fd;
  }

  /** Makes the file, or empties it. */
  static create(path: string): SpanFileWriter {
    const writer = new SpanFileWriter(path, openSync(path, "w+", 0o644));
    writer.#write(Buffer.alloc(spanFile.headerBytes), 0);
    return writer;
  }

  /** Bytes of the windows kept so far. */
  get windowsBytes(): number {
    return this.#windowsBytes;
  }

  /** Keeps an inflate window; returns its offset from the start of the windows. */
  addWindow(stored: Uint8Array): number {
    const offset = this.#windowsBytes;
    this.#write(stored, spanFile.headerBytes + offset);
    this.#windowsBytes += stored.length;
    return offset;
  }

  /** Writes tables and header and closes the file. Returns its size and SHA-256 (hex). */
  finish(
    layer: Pick<SpanHeader, "kind" | "compressedBytes" | "tarBytes" | "blobBytes" | "digest">,
    spans: SpanTable,
    extents: ExtentTable,
  ): { sizeBytes: number; sha256: string } {
    const spansOffset = alignUp(spanFile.headerBytes + this.#windowsBytes);
    let end = spansOffset;
    for (const piece of spans.seal(extents, layer.blobBytes)) {
      this.#write(piece, end);
      end += piece.length;
    }
    const extentsOffset = end;
    for (const piece of extents.pieces()) {
      this.#write(piece, end);
      end += piece.length;
    }
    const header = encodeHeader({
      ...layer,
      spanCount: spans.count,
      extentCount: extents.count,
      spansOffset,
      extentsOffset,
      extentsBytes: end - extentsOffset,
      windowsOffset: spanFile.headerBytes,
      windowsBytes: this.#windowsBytes,
    });
    this.#write(header, 0);
    const sha256 = this.#hash(end);
    this.close();
    return { sizeBytes: end, sha256 };
  }

  /** Closes the file as it is; does nothing when it is closed already. */
  close(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }

  #hash(length: number): string {
    const hasher = new Bun.CryptoHasher("sha256");
    const buffer = Buffer.allocUnsafe(1024 * 1024);
    for (let at = 0; at < length; ) {
      const got = readSync(this.#fd, buffer, 0, Math.min(buffer.length, length - at), at);
      if (got === 0) throw corrupt(this.#path, "it shrank while it was written");
      hasher.update(buffer.subarray(0, got));
      at += got;
    }
    return hasher.digest("hex");
  }

  #write(bytes: Uint8Array, position: number): void {
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#fd, bytes, done, bytes.length - done, position + done);
      }
    } catch (error) {
      throw writeError(this.#path, error);
    }
  }
}

/** Reads the header of a span file. @throws {IndexError} `not_found`, `corrupt_index` */
export function readSpanHeader(path: string): SpanHeader {
  const bytes = Buffer.alloc(spanFile.headerBytes);
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    throw new IndexError("not_found", `the span file ${path} cannot be opened`, {
      cause,
      next: "Build the image again.",
    });
  }
  try {
    if (readSync(fd, bytes, 0, bytes.length, 0) < bytes.length) throw corrupt(path, "it is too short");
  } finally {
    closeSync(fd);
  }
  if (bytes.toString("latin1", 0, 8) !== spanFile.magic) throw corrupt(path, "it does not begin as one");
  if (bytes.readUInt32LE(8) !== spanFile.version) throw corrupt(path, "it has another version");
  const kind = Object.values(spanFile.kinds).find((known) => known === bytes.readUInt32LE(12));
  if (kind === undefined) throw corrupt(path, "it is of an unknown kind");
  const number = (at: number): number => Number(bytes.readBigUInt64LE(at));
  return {
    kind,
    compressedBytes: number(16),
    tarBytes: number(24),
    blobBytes: number(32),
    spanCount: bytes.readUInt32LE(40),
    extentCount: bytes.readUInt32LE(44),
    spansOffset: number(48),
    extentsOffset: number(56),
    extentsBytes: number(112),
    windowsOffset: number(64),
    windowsBytes: number(72),
    digest: `sha256:${bytes.toString("hex", 80, 112)}`,
  };
}

function encodeHeader(header: SpanHeader): Buffer {
  const bytes = Buffer.alloc(spanFile.headerBytes);
  bytes.write(spanFile.magic, 0, "latin1");
  bytes.writeUInt32LE(spanFile.version, 8);
  bytes.writeUInt32LE(header.kind, 12);
  writeNumber(bytes, header.compressedBytes, 16);
  writeNumber(bytes, header.tarBytes, 24);
  writeNumber(bytes, header.blobBytes, 32);
  bytes.writeUInt32LE(header.spanCount, 40);
  bytes.writeUInt32LE(header.extentCount, 44);
  writeNumber(bytes, header.spansOffset, 48);
  writeNumber(bytes, header.extentsOffset, 56);
  writeNumber(bytes, header.windowsOffset, 64);
  writeNumber(bytes, header.windowsBytes, 72);
  writeNumber(bytes, header.extentsBytes, 112);
  bytes.write(header.digest.slice("sha256:".length), 80, "hex");
  return bytes;
}

/** Tables begin on 64-byte boundaries, for readers that map the file. */
function alignUp(offset: number): number {
  return Math.ceil(offset / 64) * 64;
}

function corrupt(path: string, why: string): IndexError {
  return new IndexError("corrupt_index", `the span file ${path} cannot be used: ${why}`, {
    next: "Build the image again.",
  });
}
