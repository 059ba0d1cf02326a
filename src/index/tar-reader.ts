import { IndexError } from "./error.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";
import { isZeroBlock, parseTarHeader, type TarHeader, tarBlockBytes, tarText } from "./tar-header.ts";
import { quoteName } from "./tar-name.ts";
import { PaxScope, parsePax, parsePaxTime } from "./tar-pax.ts";
import { checkSegments, OldGnuMap, PaxMap, readPaxSparse, type SparseSegment } from "./tar-sparse.ts";

/** A member of a tar archive with its extended headers applied; nothing about its name is cleaned. */
export interface TarMember {
  readonly name: string;
  readonly link: string;
  /** Type flag; `0` for every kind of regular file, sparse ones included. */
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of the file as `stat` shows it. */
  readonly size: number;
  readonly mtimeSeconds: number;
  readonly mtimeNanos: number;
  readonly deviceMajor: number;
  readonly deviceMinor: number;
  readonly pax: PaxScope;
  /** Where its data begin in the tar stream, and how many bytes they are there. */
  readonly dataOffset: number;
  readonly dataBytes: number;
  /** Of a sparse file: where the data go. Else the data are the file. */
  readonly segments: readonly SparseSegment[] | undefined;
}

/** What the next block is. */
type Expect = "header" | "oldSparse" | "paxSparse" | "end";

type Extension = "pax" | "globalPax" | "longName" | "longLink";

/** The data of an extended header, as far as they came. */
interface Capture {
  readonly what: Extension;
  readonly bytes: Buffer;
  filled: number;
}

/** Type flags of headers that extend the one that follows them. */
const extensions: Readonly<Record<string, Extension>> = {
  x: "pax",
  g: "globalPax",
  L: "longName",
  K: "longLink",
};

/** Types that have no data, whatever their size field says (as archive/tar, Docker's reader, has it). */
const headerOnly = new Set(["1", "2", "3", "4", "5", "6"]);

/**
 * Reads a tar stream that is pushed through it in pieces of any size. Contents are skipped, not looked at; `onMember` is
 * called for each member, in order, once its header is complete.
 *
 * Formats: v7, ustar, pax (POSIX.1-2001), GNU (long names, base-256 numbers, sparse files).
 */
export class TarReader {
  readonly #limits: IndexLimits;
  readonly #onMember: (member: TarMember) => void;
  readonly #pax = new PaxScope();
  readonly #block = Buffer.alloc(tarBlockBytes);
  #blockFilled = 0;
  #offset = 0;
  #expect: Expect = "header";
  #zeroBlocks = 0;
  /** Bytes to pass over, and how many of them are padding that may be missing at the archive's end. */
  #skip = 0;
  #padding = 0;
  #capture: Capture | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;
  #pending: { header: TarHeader; name: string; size: number } | undefined;
  #oldMap: OldGnuMap | undefined;
  #paxMap: PaxMap | undefined;
  #paxMapRealSize = 0;
  #lastName = "";

  constructor(limits: IndexLimits, onMember: (member: TarMember) => void) {
    this.#limits = limits;
    this.#onMember = onMember;
  }

  /** Whether the end of the archive was seen; what is pushed after it is ignored. */
  get ended(): boolean {
    return this.#expect === "end";
  }

  /** @throws {IndexError} `bad_tar`, `limit_exceeded` */
  push(bytes: Uint8Array): void {
    const chunk = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at < chunk.length && this.#expect !== "end") {
      const left = chunk.length - at;
      let taken: number;
      if (this.#skip > 0) {
        taken = Math.min(this.#skip, left);
        this.#skip -= taken;
        this.#offset += taken;
      } else if (this.#capture !== undefined) {
        taken = chunk.copy(this.#capture.bytes, this.#capture.filled, at);
        this.#capture.filled += taken;
        this.#offset += taken;
        if (this.#capture.filled === this.#capture.bytes.length) this.#onCaptured(this.#capture);
      } else if (this.#blockFilled === 0 && left >= tarBlockBytes) {
        taken = tarBlockBytes;
        this.#offset += taken;
        this.#onBlock(chunk.subarray(at, at + taken));
      } else {
        taken = chunk.copy(this.#block, this.#blockFilled, at);
        this.#blockFilled += taken;
        if (this.#blockFilled === tarBlockBytes) this.#onFilledBlock();
      }
      at += taken;
    }
  }

  /** Says that the stream is over. @throws {IndexError} `bad_tar` when it stops inside of a member */
  finish(): void {
    if (this.#expect === "end") return;
    const inside = this.#skip > this.#padding || this.#blockFilled > 0 || this.#expect !== "header";
    const capturing = this.#capture !== undefined;
    const extended =
      this.#longName !== undefined || this.#longLink !== undefined || this.#pax.local.length > 0;
    if (!inside && !capturing && !extended) return;
    throw new IndexError(
      "bad_tar",
      `the tar stream ends at byte ${this.#offset + this.#blockFilled}, inside of or after ${quoteName(this.#lastName)}`,
      { next: "Push the image again." },
    );
  }

  #onFilledBlock(): void {
    this.#blockFilled = 0;
    this.#offset += tarBlockBytes;
    this.#onBlock(this.#block);
  }

  #onBlock(block: Buffer): void {
    if (this.#expect === "header") this.#onHeader(block);
    else if (this.#expect === "oldSparse") this.#onOldSparse(block);
    else if (this.#expect === "paxSparse") this.#onPaxSparse(block);
  }

  #onHeader(block: Buffer): void {
    if (block[0] === 0 && isZeroBlock(block)) {
      this.#zeroBlocks += 1;
      if (this.#zeroBlocks === 2) this.#expect = "end";
      return;
    }
    const where = this.#offset - tarBlockBytes;
    if (this.#zeroBlocks > 0) throw this.#bad(`byte ${where}`, "a header follows a zero block");
    const header = parseTarHeader(block, where);
    const extension = extensions[header.type];
    if (extension === undefined) this.#onMemberHeader(header, block);
    else this.#beginCapture(extension, header);
  }

  /** Collects the data of an extended header. */
  #beginCapture(what: Extension, header: TarHeader): void {
    if (header.size < 0) throw this.#bad(header.name, "its size is negative");
    checkLimit(this.#limits, "paxBytesMax", header.size, () => `the header ${quoteName(header.name)}`);
    this.#capture = { what, bytes: Buffer.allocUnsafe(header.size), filled: 0 };
    if (header.size === 0) this.#onCaptured(this.#capture);
  }

  #onCaptured({ what, bytes }: Capture): void {
    this.#capture = undefined;
    this.#setPadding(bytes.length);
    this.#skip = this.#padding;
    if (what === "pax") this.#pax.setLocal(parsePax(bytes));
    else if (what === "longName") this.#longName = tarText(bytes, 0, bytes.length);
    else if (what === "longLink") this.#longLink = tarText(bytes, 0, bytes.length);
    else parsePax(bytes);
  }

  /** What is missing to whole blocks after so many bytes. */
  #setPadding(bytes: number): void {
    this.#padding = (tarBlockBytes - (bytes % tarBlockBytes)) % tarBlockBytes;
  }

  #onMemberHeader(header: TarHeader, block: Buffer): void {
    const pax = this.#pax;
    const sparse = pax.isEmpty ? undefined : readPaxSparse(pax, header.name, this.#limits);
    const name = this.#longName ?? sparse?.name ?? pax.get("path") ?? header.name;
    const declared = pax.number("size") ?? header.size;
    const size = headerOnly.has(header.type) ? 0 : declared;
    if (size < 0) throw this.#bad(name, "its size is negative");
    this.#lastName = name;
    this.#pending = { header, name, size };
    if (header.type === "S") {
      this.#oldMap = new OldGnuMap(block, name, this.#limits);
      if (this.#oldMap.more) this.#expect = "oldSparse";
      else this.#onOldSparseComplete(this.#oldMap);
    } else if (sparse?.segments !== undefined) {
      this.#emit(sparse.segments, sparse.realSize);
    } else if (sparse !== undefined) {
      this.#paxMap = new PaxMap(name, this.#limits);
      this.#paxMapRealSize = sparse.realSize;
      this.#expect = "paxSparse";
    } else {
      this.#emit(undefined, size);
    }
  }

  #onOldSparse(block: Buffer): void {
    const map = this.#oldMap;
    if (map === undefined) return;
    map.add(block);
    if (!map.more) this.#onOldSparseComplete(map);
  }

  #onOldSparseComplete(map: OldGnuMap): void {
    this.#oldMap = undefined;
    this.#emit(map.segments, map.realSize);
  }

  #onPaxSparse(block: Buffer): void {
    const map = this.#paxMap;
    const pending = this.#pending;
    if (map === undefined || pending === undefined) return;
    pending.size -= tarBlockBytes;
    if (pending.size < 0) throw this.#bad(pending.name, "its sparse map is longer than its data");
    map.add(block);
    if (!map.complete) return;
    this.#paxMap = undefined;
    this.#emit(map.segments, this.#paxMapRealSize);
  }

  /** The member's header is complete and its data begin at the current offset. */
  #emit(segments: readonly SparseSegment[] | undefined, size: number): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    const { header, name, size: dataBytes } = pending;
    const pax = this.#pax;
    if (segments !== undefined) checkSegments(name, segments, size, dataBytes);
    const time = pax.get("mtime");
    const mtime = time === undefined ? { seconds: header.mtime, nanos: 0 } : parsePaxTime(time);
    this.#onMember({
      name,
      link: this.#longLink ?? pax.get("linkpath") ?? header.link,
      type: memberType(header.type, name),
      mode: header.mode,
      uid: pax.number("uid") ?? header.uid,
      gid: pax.number("gid") ?? header.gid,
      size,
      mtimeSeconds: mtime.seconds,
      mtimeNanos: mtime.nanos,
      deviceMajor: header.deviceMajor,
      deviceMinor: header.deviceMinor,
      pax,
      dataOffset: this.#offset,
      dataBytes,
      segments,
    });
    this.#setPadding(dataBytes);
    this.#skip = dataBytes + this.#padding;
    this.#expect = "header";
    this.#pending = undefined;
    this.#longName = undefined;
    this.#longLink = undefined;
    pax.clearLocal();
  }

  #bad(name: string, why: string): IndexError {
    return new IndexError("bad_tar", `the tar entry ${quoteName(name)} cannot be read: ${why}`, {
      next: "Push the image again.",
    });
  }
}

/** `0` for regular files: of v7 (NUL), contiguous (`7`), sparse (`S`). A v7 name that ends in `/` is a folder. */
function memberType(type: string, name: string): string {
  if (type === "\0" && name.endsWith("/")) return "5";
  return type === "\0" || type === "7" || type === "S" ? "0" : type;
}
