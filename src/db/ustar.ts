/** An entry of a tar archive. */
export interface TarEntry {
  /** As in the archive, without a leading `./`. */
  readonly name: string;
  readonly type: "file" | "dir" | "symlink";
  readonly mode: number;
  readonly link: string;
  readonly data: Uint8Array;
}

const blockBytes = 512;

/**
 * The entries of a ustar archive (POSIX.1-1988 interchange format) that is whole in memory: files, folders, symbolic
 * links. Meant for the archive that we packed ourselves, and throws at anything else.
 */
export function* readUstar(archive: Uint8Array): Generator<TarEntry> {
  const bytes = Buffer.from(archive.buffer, archive.byteOffset, archive.byteLength);
  let offset = 0;
  while (offset + blockBytes <= bytes.length) {
    const header = bytes.subarray(offset, offset + blockBytes);
    if (header.every((byte) => byte === 0)) return;
    if (header.toString("latin1", 257, 262) !== "ustar") throw new Error("not a ustar archive");
    const size = octal(header, 124, 12);
    const start = offset + blockBytes;
    if (start + size > bytes.length) throw new Error("the archive is cut short");
    const prefix = text(header, 345, 155);
    const path = prefix === "" ? text(header, 0, 100) : `${prefix}/${text(header, 0, 100)}`;
    yield {
      name: safeName(path),
      type: entryType(header[156] ?? 0),
      mode: octal(header, 100, 8),
      link: text(header, 157, 100),
      data: bytes.subarray(start, start + size),
    };
    offset = start + Math.ceil(size / blockBytes) * blockBytes;
  }
  throw new Error("the archive is cut short");
}

function entryType(flag: number): TarEntry["type"] {
  const letter = String.fromCharCode(flag);
  if (letter === "0" || letter === "\0") return "file";
  if (letter === "5") return "dir";
  if (letter === "2") return "symlink";
  throw new Error(`a tar entry of type ${letter} was not expected`);
}

function safeName(path: string): string {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (path.startsWith("/") || parts.includes("..")) throw new Error("a tar entry leaves its folder");
  return parts.join("/");
}

function text(header: Buffer, start: number, length: number): string {
  const field = header.subarray(start, start + length);
  const end = field.indexOf(0);
  return field.toString("utf8", 0, end === -1 ? length : end);
}

function octal(header: Buffer, start: number, length: number): number {
  const value = Number.parseInt(text(header, start, length).trim() || "0", 8);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error("a tar header is broken");
  return value;
}
