import { IndexError } from "./error.ts";
import { checkLimit, type IndexLimits } from "./limits.ts";
import { parseTarNumber, tarBlockBytes } from "./tar-header.ts";
import { quoteName } from "./tar-name.ts";
import { type PaxScope, parseDecimal } from "./tar-pax.ts";

/** A run of data in a sparse file; what lies between the runs are zeros that the archive does not hold. */
export interface SparseSegment {
  readonly offset: number;
  readonly length: number;
}

/** How a member that is sparse tells where its data go (GNU tar manual, "Storing Sparse Files"). */
export interface PaxSparse {
  /** Set for format 1.0, whose map stands before the data; else the map itself. */
  readonly segments: SparseSegment[] | undefined;
  readonly realSize: number;
  readonly name: string | undefined;
}

/** The sparse records of a pax header, formats 0.0, 0.1 and 1.0; `undefined` when the member is not sparse. */
export function readPaxSparse(pax: PaxScope, name: string, limits: IndexLimits): PaxSparse | undefined {
  const major = pax.get("GNU.sparse.major");
  const realName = pax.get("GNU.sparse.name");
  if (major !== undefined && major !== "0") {
    const minor = pax.get("GNU.sparse.minor") ?? "0";
    const realSize = pax.number("GNU.sparse.realsize") ?? pax.number("GNU.sparse.size");
    if (major !== "1" || minor !== "0")
      throw badSparse(name, `its format is ${major}.${minor}, which is unknown`);
    if (realSize === undefined) throw badSparse(name, "its size is missing");
    return { segments: undefined, realSize, name: realName };
  }
  const realSize = pax.number("GNU.sparse.size") ?? pax.number("GNU.sparse.realsize");
  if (realSize === undefined) return undefined;
  const map = pax.get("GNU.sparse.map");
  const numbers =
    map === undefined
      ? pax.local
          .filter(([key]) => key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes")
          .map(([, value]) => value)
      : map.split(",");
  checkLimit(limits, "sparseSegmentsMax", numbers.length / 2, () => `the sparse file ${quoteName(name)}`);
  if (numbers.length % 2 !== 0) throw badSparse(name, "its map has an odd number of entries");
  const segments: SparseSegment[] = [];
  for (let at = 0; at < numbers.length; at += 2) {
    const offset = parseDecimal(numbers[at] ?? "");
    const length = parseDecimal(numbers[at + 1] ?? "");
    if (offset === undefined || length === undefined) throw badSparse(name, "its map is not made of numbers");
    segments.push({ offset, length });
  }
  return { segments, realSize, name: realName };
}

/**
 * The map of an old GNU sparse member (type `S`): four places in its header, then blocks of 21.
 * `add` returns whether another block follows.
 */
export class OldGnuMap {
  readonly segments: SparseSegment[] = [];
  readonly realSize: number;
  readonly #name: string;
  readonly #limits: IndexLimits;
  /** Whether another block of the map follows. */
  more: boolean;

  constructor(header: Uint8Array, name: string, limits: IndexLimits) {
    this.#name = name;
    this.#limits = limits;
    const realSize = parseTarNumber(header, 483, 12);
    if (realSize === undefined || realSize < 0) throw badSparse(name, "its size is not a number");
    this.realSize = realSize;
    this.#take(header, 386, 4);
    this.more = header[482] !== 0;
  }

  add(block: Uint8Array): void {
    this.#take(block, 0, 21);
    this.more = block[504] !== 0;
  }

  #take(block: Uint8Array, start: number, count: number): void {
    for (let at = start; at < start + count * 24 && block[at] !== 0; at += 24) {
      const offset = parseTarNumber(block, at, 12);
      const length = parseTarNumber(block, at + 12, 12);
      if (offset === undefined || length === undefined)
        throw badSparse(this.#name, "its map is not made of numbers");
      this.segments.push({ offset, length });
    }
    checkLimit(
      this.#limits,
      "sparseSegmentsMax",
      this.segments.length,
      () => `the sparse file ${quoteName(this.#name)}`,
    );
  }
}

/** The map of format 1.0: decimal lines before the data (a count, then offset and length of each), in whole blocks. */
export class PaxMap {
  readonly segments: SparseSegment[] = [];
  readonly #name: string;
  readonly #limits: IndexLimits;
  #count: number | undefined;
  #offset: number | undefined;
  #rest = "";

  constructor(name: string, limits: IndexLimits) {
    this.#name = name;
    this.#limits = limits;
  }

  get complete(): boolean {
    return this.#count === this.segments.length;
  }

  /** Reads one block of 512 bytes. */
  add(block: Buffer): void {
    const lines = (this.#rest + block.toString("latin1", 0, tarBlockBytes)).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      if (this.complete) break;
      this.#number(parseDecimal(line));
    }
    if (this.#rest.length > 20 && !this.complete)
      throw badSparse(this.#name, "its map is not made of numbers");
  }

  #number(value: number | undefined): void {
    if (value === undefined) throw badSparse(this.#name, "its map is not made of numbers");
    if (this.#count === undefined) {
      checkLimit(this.#limits, "sparseSegmentsMax", value, () => `the sparse file ${quoteName(this.#name)}`);
      this.#count = value;
    } else if (this.#offset === undefined) {
      this.#offset = value;
    } else {
      this.segments.push({ offset: this.#offset, length: value });
      this.#offset = undefined;
    }
  }
}

/** @throws {IndexError} `bad_tar` unless the runs are in order, inside of the file, and all of the stored bytes. */
export function checkSegments(
  name: string,
  segments: readonly SparseSegment[],
  realSize: number,
  storedSize: number,
): void {
  let end = 0;
  let stored = 0;
  for (const { offset, length } of segments) {
    if (offset < end || length < 0) throw badSparse(name, "its map is not in order");
    end = offset + length;
    stored += length;
  }
  if (end > realSize) throw badSparse(name, "its map goes past its end");
  if (stored !== storedSize) throw badSparse(name, "its map does not cover the bytes that it has");
}

function badSparse(name: string, why: string): IndexError {
  return new IndexError("bad_tar", `the sparse file ${quoteName(name)} cannot be read: ${why}`, {
    next: "Push the image again.",
  });
}
