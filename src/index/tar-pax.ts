import { IndexError } from "./error.ts";

/** Records of a pax extended header in their order; a key may stand more than once. Values are bytes as latin1 text. */
export type PaxRecords = readonly (readonly [key: string, value: string])[];

const texts = new Set(["path", "linkpath", "GNU.sparse.name"]);

/**
 * Reads the records `LENGTH KEY=VALUE\n` of a pax header (POSIX.1-2001, pax, "Extended Header").
 *
 * @throws {IndexError} `bad_tar`
 */
export function parsePax(bytes: Buffer): PaxRecords {
  const records: [string, string][] = [];
  for (let start = 0; start < bytes.length; ) {
    // Some writers pad with NULs inside of the announced size.
    if (bytes[start] === 0) break;
    const blank = bytes.indexOf(0x20, start);
    if (blank < 0 || blank - start > 7) throw badPax("a record has no length");
    const length = parseDecimal(bytes.toString("latin1", start, blank));
    const end = start + (length ?? 0);
    if (length === undefined || end > bytes.length || end <= blank || bytes[end - 1] !== 0x0a) {
      throw badPax("a record's length is wrong");
    }
    const equals = bytes.indexOf(0x3d, blank);
    if (equals < 0 || equals >= end || equals === blank + 1) throw badPax("a record has no key");
    const key = bytes.toString("latin1", blank + 1, equals);
    const value = bytes.toString("latin1", equals + 1, end - 1);
    if (key.includes("\0") || (texts.has(key) && value.includes("\0"))) throw badPax("a name holds a NUL");
    records.push([key, value]);
    start = end;
  }
  return records;
}

/**
 * The records of the extended header before a member; an empty value says that the member has none of it.
 *
 * Global headers (`g`) are read and have no effect, as in the engines that unpack images (containerd and Docker, by Go's
 * `archive/tar`): a record that holds for all that follows is nothing that their layers could have meant.
 */
export class PaxScope {
  #local: PaxRecords = [];
  #localByKey: Map<string, string> = new Map();

  /** Records of an extended header: they hold for the next member only. */
  setLocal(records: PaxRecords): void {
    this.#local = records;
    this.#localByKey = new Map(records);
  }

  clearLocal(): void {
    if (this.#local.length > 0) this.setLocal([]);
  }

  /** Local records in their order, for the keys that may stand more than once. */
  get local(): PaxRecords {
    return this.#local;
  }

  get isEmpty(): boolean {
    return this.#local.length === 0;
  }

  get(key: string): string | undefined {
    const value = this.#localByKey.get(key);
    return value === "" ? undefined : value;
  }

  /** A whole number that is not negative. @throws {IndexError} `bad_tar` */
  number(key: string): number | undefined {
    const text = this.get(key);
    if (text === undefined) return undefined;
    const value = parseDecimal(text);
    if (value === undefined) throw badPax(`${key} is not a number, or out of range`);
    return value;
  }

  /** All keys in force that begin with `prefix`, without it. Values may be empty. */
  *withPrefix(prefix: string): Generator<[rest: string, value: string]> {
    for (const [key, value] of this.#localByKey) {
      if (key.startsWith(prefix)) yield [key.slice(prefix.length), value];
    }
  }
}

/** Decimal digits alone, exact in a double. */
export function parseDecimal(text: string): number | undefined {
  if (!/^\d{1,16}$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : undefined;
}

/**
 * A time in decimal seconds, maybe negative, maybe with a fraction: -1.25 is 750,000,000 ns after second -2.
 *
 * @throws {IndexError} `bad_tar`
 */
export function parsePaxTime(text: string): { seconds: number; nanos: number } {
  const match = /^(-?)(\d{1,16})(?:\.(\d*))?$/.exec(text);
  const whole = parseDecimal(match?.[2] ?? "");
  if (match === null || whole === undefined) throw badPax("a time is not a number, or out of range");
  const nanos = Number((match[3] ?? "").slice(0, 9).padEnd(9, "0"));
  if (match[1] === "") return { seconds: whole, nanos };
  return nanos === 0 ? { seconds: 0 - whole, nanos: 0 } : { seconds: -whole - 1, nanos: 1e9 - nanos };
}

/** Bytes of a libarchive attribute name: `%XX` stands for one byte. */
export function decodePercent(text: string): string {
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function badPax(why: string): IndexError {
  return new IndexError("bad_tar", `a pax header cannot be read: ${why}`, { next: "Push the image again." });
}
