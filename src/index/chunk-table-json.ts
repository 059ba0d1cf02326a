import { unusable } from "./chunk-table.ts";

const quote = 0x22;
const backslash = 0x5c;
const [braceOpen, braceClose, bracketOpen, bracketClose] = [0x7b, 0x7d, 0x5b, 0x5d];
/** A key at the top that is longer is not `entries`. */
const keyBytesMax = 64;

/**
 * Cuts the JSON of a chunk table, `{"version": 1, "entries": [{…}, …]}`, into its entries, in pieces of any size: a table
 * of a million entries is never in memory as a whole. What else stands at the top is passed over.
 */
export class EntryCutter {
  readonly #onEntry: (entry: unknown) => void;
  readonly #entryBytesMax: number;
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** The latest string at the top: a key, when an array follows. */
  #key = "";
  /** What there is of a string or an entry that goes on in the next piece. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  #inEntries = false;
  #entriesSeen = false;

  /** @param entryBytesMax an entry's text is not longer */
  constructor(entryBytesMax: number, onEntry: (entry: unknown) => void) {
    this.#onEntry = onEntry;
    this.#entryBytesMax = entryBytesMax;
  }

  /** @throws {IndexError} `bad_layer`, and what `onEntry` throws */
  push(bytes: Uint8Array): void {
    const piece = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    /** Where what is collected (an entry, or a key) begins in this piece; -1: nothing is collected. */
    let from = this.#collecting ? 0 : -1;
    for (let at = 0; at < piece.length; at += 1) {
      if (this.#inString) {
        at = this.#stringEnd(piece, at);
        if (at === piece.length) break;
        this.#inString = false;
        if (this.#depth !== 1) continue;
        this.#key = this.#taken(piece, from, at).toString("latin1");
        from = -1;
        continue;
      }
      const byte = piece[at];
      if (byte === quote) {
        this.#inString = true;
        if (this.#depth === 1) from = at + 1;
      } else if (byte === braceOpen || byte === bracketOpen) {
        if (this.#depth === 1 && byte === bracketOpen && this.#key === "entries") this.#beginEntries();
        if (this.#depth === 2 && this.#inEntries) from = at;
        this.#depth += 1;
      } else if (byte === braceClose || byte === bracketClose) {
        this.#depth -= 1;
        if (this.#depth < 0) throw unusable("it is not JSON");
        if (this.#depth === 1) this.#inEntries = false;
        if (this.#depth === 2 && this.#inEntries) {
          this.#onEntry(parse(this.#taken(piece, from, at + 1)));
          from = -1;
        }
      }
    }
    if (from >= 0) this.#hold(piece.subarray(from));
  }

  /** Says that all bytes were pushed. @throws {IndexError} `bad_layer` when they were not a whole table */
  finish(): void {
    if (this.#depth !== 0 || this.#inString || !this.#entriesSeen) throw unusable("it is not whole");
  }

  get #collecting(): boolean {
    return this.#inString && this.#depth === 1 ? true : this.#inEntries && this.#depth > 2;
  }

  /** Where the quote is that ends the string that goes on at `at`; the piece's length: not in this piece. */
  #stringEnd(piece: Buffer, start: number): number {
    let escaped = this.#escaped;
    let at = start;
    for (; at < piece.length; at += 1) {
      const byte = piece[at];
      if (escaped) escaped = false;
      else if (byte === backslash) escaped = true;
      else if (byte === quote) break;
    }
    this.#escaped = escaped;
    return at;
  }

  #beginEntries(): void {
    if (this.#entriesSeen) throw unusable("it has two lists of entries");
    this.#entriesSeen = true;
    this.#inEntries = true;
  }

  #hold(bytes: Buffer): void {
    this.#heldBytes += bytes.length;
    const most = this.#inEntries ? this.#entryBytesMax : keyBytesMax;
    if (this.#heldBytes > most && this.#inEntries) throw unusable("an entry is too long");
    if (this.#heldBytes <= most) this.#held.push(Buffer.from(bytes));
  }

  /** What is collected, with its end in `piece[from … to)`. */
  #taken(piece: Buffer, from: number, to: number): Buffer {
    const end = piece.subarray(from, to);
    if (this.#heldBytes + end.length > this.#entryBytesMax) throw unusable("an entry is too long");
    const taken = this.#held.length === 0 ? end : Buffer.concat([...this.#held, end]);
    this.#held = [];
    this.#heldBytes = 0;
    return taken;
  }
}

function parse(text: Buffer): unknown {
  try {
    return JSON.parse(text.toString("utf8"));
  } catch {
    throw unusable("an entry is not JSON");
  }
}
