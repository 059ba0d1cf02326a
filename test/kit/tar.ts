/**
 * A tar writer for test images: POSIX pax format, as GNU tar and Go's archive/tar write it. Names, links and xattr values
 * are bytes (text is taken as UTF-8), so that anything which a layer can hold can be written, the odd included.
 */
export interface TarEntry {
  readonly path: string | Uint8Array;
  readonly type?: "file" | "dir" | "symlink" | "hardlink" | "char" | "block" | "fifo";
  readonly data?: Uint8Array | string;
  readonly link?: string | Uint8Array;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since 1970 with any number of decimals, as text: `"-315619200"`, `"1700000000.123456789"`. */
  readonly mtime?: string;
  readonly device?: readonly [major: number, minor: number];
  readonly xattrs?: Readonly<Record<string, Uint8Array | string>>;
  /** A sparse file in GNU's pax 1.0 format: its full size and where `pieces` lie in it. Instead of `data`. */
  readonly sparse?: {
    readonly sizeBytes: number;
    readonly pieces: readonly { offset: number; data: Uint8Array }[];
  };
}

const typeFlags = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  char: "3",
  block: "4",
  dir: "5",
  fifo: "6",
} as const;

/** The bytes of a whole archive, with the two closing blocks. */
export function tarOf(entries: readonly TarEntry[]): Uint8Array {
  const parts = entries.flatMap(entryBlocks);
  return Buffer.concat([...parts, Buffer.alloc(1024)]);
}

function entryBlocks(entry: TarEntry): Buffer[] {
  const type = entry.type ?? "file";
  const path = bytesOf(entry.path);
  const link = bytesOf(entry.link ?? "");
  const mtime = entry.mtime ?? "1700000000";
  const pax: Buffer[] = [];
  let data = bytesOf(entry.data ?? "");
  let name = path;
  if (entry.sparse !== undefined) {
    const { sizeBytes, pieces } = entry.sparse;
    pax.push(paxRecord("GNU.sparse.major", "1"), paxRecord("GNU.sparse.minor", "0"));
    pax.push(paxRecord("GNU.sparse.name", path), paxRecord("GNU.sparse.realsize", String(sizeBytes)));
    // An empty piece at the end tells of a hole there.
    const places = [...pieces.map((piece) => [piece.offset, piece.data.length]), [sizeBytes, 0]];
    const map = [places.length, ...places.flat()].join("\n");
    data = Buffer.concat([padded(Buffer.from(`${map}\n`)), ...pieces.map((piece) => piece.data)]);
    name = Buffer.from(`GNUSparseFile.0/${path.subarray(-60).toString("latin1").replaceAll("/", "_")}`);
  }
  if (name.length > 100 || !isAscii(name)) pax.push(paxRecord("path", name));
  if (link.length > 100 || !isAscii(link)) pax.push(paxRecord("linkpath", link));
  if (!/^\d+$/.test(mtime)) pax.push(paxRecord("mtime", mtime));
  for (const field of ["uid", "gid"] as const) {
    if ((entry[field] ?? 0) > 0o7777777) pax.push(paxRecord(field, String(entry[field])));
  }
  for (const [key, value] of Object.entries(entry.xattrs ?? {}))
    pax.push(paxRecord(`SCHILY.xattr.${key}`, bytesOf(value)));
  const blocks: Buffer[] = [];
  if (pax.length > 0) {
    const body = Buffer.concat(pax);
    blocks.push(
      header({ name: Buffer.from("PaxHeaders/x"), flag: "x", sizeBytes: body.length }),
      padded(body),
    );
  }
  blocks.push(
    header({
      name: name.subarray(0, 100),
      flag: typeFlags[type],
      sizeBytes: type === "file" ? data.length : 0,
      mode: entry.mode ?? (type === "dir" ? 0o755 : type === "symlink" ? 0o777 : 0o644),
      uid: (entry.uid ?? 0) > 0o7777777 ? 0 : (entry.uid ?? 0),
      gid: (entry.gid ?? 0) > 0o7777777 ? 0 : (entry.gid ?? 0),
      mtime: Math.max(0, Math.floor(Number(mtime))),
      link: link.subarray(0, 100),
      ...(entry.device === undefined ? {} : { device: entry.device }),
    }),
  );
  if (type === "file") blocks.push(padded(data));
  return blocks;
}

interface Header {
  name: Buffer;
  flag: string;
  sizeBytes: number;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  link?: Buffer;
  device?: readonly [number, number];
}

function header(fields: Header): Buffer {
  const block = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number): void => {
    block.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  };
  fields.name.copy(block, 0);
  octal(fields.mode ?? 0o644, 100, 8);
  octal(fields.uid ?? 0, 108, 8);
  octal(fields.gid ?? 0, 116, 8);
  octal(fields.sizeBytes, 124, 12);
  octal(fields.mtime ?? 0, 136, 12);
  block.write("        ", 148, "latin1");
  block.write(fields.flag, 156, "latin1");
  fields.link?.copy(block, 157);
  block.write("ustar\u000000", 257, "latin1");
  octal(fields.device?.[0] ?? 0, 329, 8);
  octal(fields.device?.[1] ?? 0, 337, 8);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts itself. */
function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), bytesOf(value), Buffer.from("\n")]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function padded(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

function bytesOf(value: string | Uint8Array): Buffer {
  return typeof value === "string" ? Buffer.from(value) : Buffer.from(value);
}

function isAscii(value: Uint8Array): boolean {
  return value.every((byte) => byte < 0x80);
}
