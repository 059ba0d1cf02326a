import { tarBlockBytes } from "./tar-header.ts";

/** Makes tar archives for tests, written against POSIX and the GNU tar manual and not against our own reader. */
export interface KitMember {
  name: string;
  type?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  link?: string;
  data?: Uint8Array;
  /** Said in the header in place of the data's length. */
  size?: number;
  deviceMajor?: number;
  deviceMinor?: number;
  format?: "ustar" | "gnu" | "v7";
  pax?: readonly (readonly [string, string | Uint8Array])[];
  /** Last word on the header block, before its checksum is made. */
  edit?: (block: Buffer) => void;
}

/** An archive of the members, ended by two zero blocks unless told otherwise. */
export function makeTar(members: readonly KitMember[], endBlocks = 2): Buffer {
  return Buffer.concat([...members.flatMap(memberBlocks), Buffer.alloc(endBlocks * tarBlockBytes)]);
}

function memberBlocks(member: KitMember): Buffer[] {
  const blocks: Buffer[] = [];
  if (member.pax !== undefined) {
    const records = Buffer.concat(member.pax.map(([key, value]) => paxRecord(key, value)));
    blocks.push(header({ name: "PaxHeaders/x", type: "x", data: records }), padded(records));
  }
  blocks.push(header(member));
  if (member.data !== undefined) blocks.push(padded(member.data));
  return blocks;
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts itself. */
export function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), bytesOf(value), Buffer.from("\n")]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

export function padded(data: Uint8Array): Buffer {
  const block = Buffer.alloc(Math.ceil(data.length / tarBlockBytes) * tarBlockBytes);
  block.set(data);
  return block;
}

export function header(member: KitMember): Buffer {
  const block = Buffer.alloc(tarBlockBytes);
  const format = member.format ?? "ustar";
  let name = member.name;
  if (name.length > 100 && format === "ustar") {
    const slash = name.indexOf("/", name.length - 101);
    block.write(name.slice(0, slash), 345, 155, "latin1");
    name = name.slice(slash + 1);
  }
  block.write(name, 0, 100, "latin1");
  octal(block, member.mode ?? 0o644, 100, 8);
  octal(block, member.uid ?? 0, 108, 8);
  octal(block, member.gid ?? 0, 116, 8);
  octal(block, member.size ?? member.data?.length ?? 0, 124, 12);
  octal(block, member.mtime ?? 0, 136, 12);
  block.write(member.type ?? "0", 156, 1, "latin1");
  block.write(member.link ?? "", 157, 100, "latin1");
  if (format !== "v7") {
    block.write(format === "gnu" ? "ustar  \0" : "ustar\x0000", 257, "latin1");
    octal(block, member.deviceMajor ?? 0, 329, 8);
    octal(block, member.deviceMinor ?? 0, 337, 8);
  }
  member.edit?.(block);
  sealHeader(block);
  return block;
}

/** Puts the checksum in. */
export function sealHeader(block: Buffer): void {
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
}

/** Octal when it fits, else base-256, as GNU tar does. */
export function octal(block: Buffer, value: number, at: number, length: number): void {
  if (value >= 0 && value < 8 ** (length - 1)) {
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
    return;
  }
  let rest = BigInt.asUintN(length * 8, BigInt(value));
  for (let byte = at + length - 1; byte >= at; byte -= 1) {
    block[byte] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[at] = (block[at] ?? 0) | 0x80;
}

/** GNU's `L` and `K` members before a member whose name or link is too long for its header. */
export function gnuLong(type: "L" | "K", text: string): KitMember {
  return { name: "././@LongLink", type, format: "gnu", data: Buffer.from(`${text}\0`, "latin1") };
}

function bytesOf(value: string | Uint8Array): Uint8Array {
  return typeof value === "string" ? Buffer.from(value, "latin1") : value;
}

/** The same numbers for the same seed (mulberry32): `next(n)` is a whole number from 0 up to n - 1. */
export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.next(values.length)] as T;
  }

  /** Bytes that compress about as well as programs and texts do. */
  bytes(length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    for (let at = 0; at < length; ) {
      if (at > 64 && this.next(3) > 0) {
        const run = Math.min(length - at, 8 + this.next(120));
        const from = at - 1 - this.next(Math.min(at - 1, 30_000));
        for (let copied = 0; copied < run; copied += 1) bytes[at + copied] = bytes[from + copied] ?? 0;
        at += run;
      } else {
        const run = Math.min(length - at, 1 + this.next(40));
        for (let made = 0; made < run; made += 1) bytes[at + made] = this.next(256);
        at += run;
      }
    }
    return bytes;
  }
}
