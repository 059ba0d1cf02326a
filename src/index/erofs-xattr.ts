import { alignUp, erofs } from "./erofs-format.ts";
import { IndexError } from "./error.ts";
import { type TreeXattr, xattrPrefix } from "./tree-xattrs.ts";

/** The inode counts the bytes behind it in steps of 4 with 16 bits: see {@link xattrCount}. */
const bodyBytesMax = erofs.xattrHeaderBytes + 4 * (0xffff - 1);

/** Bytes of the attributes behind an inode; 0 when it has none. @throws IndexError `limit_exceeded` */
export function xattrBodyBytes(xattrs: readonly TreeXattr[] | undefined): number {
  if (xattrs === undefined || xattrs.length === 0) return 0;
  let bytes = erofs.xattrHeaderBytes;
  for (const [name, value] of xattrs) bytes += entryBytes(name, value);
  if (bytes > bodyBytesMax) {
    throw new IndexError(
      "limit_exceeded",
      `a file has extended attributes of ${bytes} bytes, more than the ${bodyBytesMax} that fit behind an inode`,
      { next: "Build the image without these extended attributes." },
    );
  }
  return bytes;
}

/** The inode field that says how long the attributes behind it are: in steps of 4 bytes, the header counting as one. */
export function xattrCount(bodyBytes: number): number {
  return bodyBytes === 0 ? 0 : (bodyBytes - erofs.xattrHeaderBytes) / 4 + 1;
}

/** Writes the attributes at `into[at …]`, which must be zero: a header, then each as name length, prefix, value length. */
export function writeXattrBody(xattrs: readonly TreeXattr[], into: Buffer, at: number): void {
  let position = at + erofs.xattrHeaderBytes;
  for (const [name, value] of xattrs) {
    const [prefix, rest] = xattrPrefix(name) ?? [0, name];
    into[position] = rest.length;
    into[position + 1] = prefix;
    into.writeUInt16LE(value.length, position + 2);
    into.write(rest, position + erofs.xattrEntryBytes, "latin1");
    into.set(value, position + erofs.xattrEntryBytes + rest.length);
    position += entryBytes(name, value);
  }
}

function entryBytes(name: string, value: Uint8Array): number {
  const rest = xattrPrefix(name)?.[1] ?? name;
  return alignUp(erofs.xattrEntryBytes + rest.length + value.length, 4);
}
