import type { TocEntry } from "./types.ts";
import { blockBytes } from "./types.ts";

/** An entry of a layer that a test makes up. Whiteouts are written as their names: `d/.wh.x`, `d/.wh..wh..opq`. */
export interface TestEntry {
  /** Latin1 text, as in a table of contents. */
  readonly path: string;
  readonly type: "file" | "dir" | "symlink" | "hardlink" | "char" | "block" | "fifo";
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: readonly [seconds: number, nanos: number];
  readonly content?: string | Uint8Array;
  readonly link?: string;
  readonly device?: readonly [major: number, minor: number];
  readonly xattrs?: Readonly<Record<string, Uint8Array | string>>;
}

export type TestLayer = readonly TestEntry[];

const typeFlags = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  char: "3",
  block: "4",
  dir: "5",
  fifo: "6",
} as const;

/** The layer as an indexer sees it: its table of contents and its aligned blob. */
export function indexTestLayer(layer: TestLayer): { toc: TocEntry[]; blob: Buffer } {
  const pieces: Buffer[] = [];
  let offset = 0;
  const toc = layer.map((entry): TocEntry => {
    const content = contentOf(entry);
    const [path, type] = whiteoutOf(entry);
    const isFile = type === "file" && content.length > 0;
    const blobOffset = isFile ? offset : -1;
    if (isFile) {
      const padded = Buffer.alloc(Math.ceil(content.length / blockBytes) * blockBytes);
      padded.set(content);
      pieces.push(padded);
      offset += padded.length;
    }
    return {
      path,
      type,
      mode: modeOf(entry),
      uid: entry.uid ?? 0,
      gid: entry.gid ?? 0,
      mtimeSeconds: timeOf(entry)[0],
      mtimeNanos: timeOf(entry)[1],
      size: type === "file" ? content.length : (entry.link?.length ?? 0),
      blobOffset,
      ...(entry.link === undefined ? {} : { link: entry.link }),
      ...(entry.device === undefined ? {} : { deviceMajor: entry.device[0], deviceMinor: entry.device[1] }),
      ...(entry.xattrs === undefined
        ? {}
        : { xattrs: Object.entries(entry.xattrs).map(([k, v]) => [k, Buffer.from(v)] as const) }),
    };
  });
  return { toc, blob: Buffer.concat(pieces) };
}

/** The layer as a pax archive (POSIX.1-2001). */
export function tarTestLayer(layer: TestLayer): Buffer {
  const blocks: Buffer[] = [];
  for (const entry of layer) {
    const content = entry.type === "file" ? contentOf(entry) : Buffer.alloc(0);
    const records = paxRecords(entry);
    if (records.length > 0) blocks.push(header("PaxHeaders/x", "x", records.length, {}), padded(records));
    blocks.push(
      header(entry.path.slice(0, 100), typeFlags[entry.type], content.length, entry),
      padded(content),
    );
  }
  blocks.push(Buffer.alloc(1024));
  return Buffer.concat(blocks);
}

function whiteoutOf(entry: TestEntry): [path: string, type: TocEntry["type"]] {
  const cut = entry.path.lastIndexOf("/");
  const directory = entry.path.slice(0, Math.max(cut, 0));
  const name = entry.path.slice(cut + 1);
  if (name === ".wh..wh..opq") return [directory, "opaque"];
  if (!name.startsWith(".wh.")) return [entry.path, entry.type];
  return [directory === "" ? name.slice(4) : `${directory}/${name.slice(4)}`, "whiteout"];
}

function contentOf(entry: TestEntry): Buffer {
  return Buffer.from(entry.content ?? "");
}

function modeOf(entry: TestEntry): number {
  if (entry.type === "symlink") return 0o777;
  return entry.mode ?? (entry.type === "dir" ? 0o755 : 0o644);
}

function timeOf(entry: TestEntry): readonly [number, number] {
  return entry.mtime ?? [1_700_000_000, 0];
}

function paxRecords(entry: TestEntry): Buffer {
  const records: Buffer[] = [];
  const add = (key: string, value: Buffer) => records.push(paxRecord(key, value));
  const [seconds, nanos] = timeOf(entry);
  if (entry.path.length > 100) add("path", Buffer.from(entry.path, "latin1"));
  if ((entry.link?.length ?? 0) > 100) add("linkpath", Buffer.from(entry.link ?? "", "latin1"));
  if (nanos !== 0 || seconds < 0 || seconds >= 2 ** 33) add("mtime", Buffer.from(decimal(seconds, nanos)));
  if ((entry.uid ?? 0) >= 2 ** 21) add("uid", Buffer.from(String(entry.uid)));
  if ((entry.gid ?? 0) >= 2 ** 21) add("gid", Buffer.from(String(entry.gid)));
  for (const [name, value] of Object.entries(entry.xattrs ?? {}))
    add(`SCHILY.xattr.${name}`, Buffer.from(value));
  return Buffer.concat(records);
}

/** Seconds with nine decimals; of a time before 1970, the nanoseconds count backwards from the next second. */
function decimal(seconds: number, nanos: number): string {
  const total = BigInt(seconds) * 1_000_000_000n + BigInt(nanos);
  const size = total < 0n ? -total : total;
  return `${total < 0n ? "-" : ""}${size / 1_000_000_000n}.${String(size % 1_000_000_000n).padStart(9, "0")}`;
}

function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, Buffer.from("\n")]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function header(path: string, flag: string, size: number, entry: Partial<TestEntry>): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, width: number) =>
    block.write(`${value.toString(8).padStart(width - 1, "0")}\0`, at, "latin1");
  const seconds = entry.mtime?.[0] ?? 1_700_000_000;
  block.write(path, 0, "latin1");
  octal(entry.type === undefined ? 0o644 : modeOf(entry as TestEntry), 100, 8);
  octal((entry.uid ?? 0) % 2 ** 21, 108, 8);
  octal((entry.gid ?? 0) % 2 ** 21, 116, 8);
  octal(size, 124, 12);
  octal(seconds < 0 || seconds >= 2 ** 33 ? 0 : seconds, 136, 12);
  block.write(" ".repeat(8), 148, "latin1");
  block.write(flag, 156, "latin1");
  block.write((entry.link ?? "").slice(0, 100), 157, "latin1");
  block.write("ustar\x0000", 257, "latin1");
  octal(entry.device?.[0] ?? 0, 329, 8);
  octal(entry.device?.[1] ?? 0, 337, 8);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)]);
}
