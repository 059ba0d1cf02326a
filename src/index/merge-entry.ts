import { IndexError } from "./error.ts";
import { type InodeFields, inodeTypes } from "./tree-inode.ts";
import type { TocEntry } from "./types.ts";

/** Linux: the longest name of a directory entry, and the longest target of a symbolic link that can be followed. */
const nameBytesMax = 255;
const targetBytesMax = 4095;

/** The inode that an entry describes. @throws IndexError `limit_exceeded` for a device that Linux cannot number */
export function inodeFields(entry: TocEntry, layer: number): InodeFields {
  return {
    // Linux gives a symbolic link all permissions, whatever the archive says (`symlink(7)`).
    mode:
      inodeTypes[entry.type as keyof typeof inodeTypes] |
      (entry.type === "symlink" ? 0o777 : entry.mode & 0o7777),
    uid: entry.uid,
    gid: entry.gid,
    mtimeSeconds: entry.mtimeSeconds,
    mtimeNanos: entry.mtimeNanos,
    size: entry.type === "file" ? entry.size : 0,
    place: entry.type === "file" ? entry.blobOffset : deviceNumber(entry),
    layer,
  };
}

/** Linux's 32-bit form of a device number (`include/linux/kdev_t.h`, new_encode_dev); 0 for what is no device. */
function deviceNumber(entry: TocEntry): number {
  if (entry.type !== "char" && entry.type !== "block") return 0;
  const major = entry.deviceMajor ?? 0;
  const minor = entry.deviceMinor ?? 0;
  if (major > 0xfff || minor > 0xfffff) {
    throw new IndexError(
      "limit_exceeded",
      `${JSON.stringify(shown(entry.path))} is the device ${major}:${minor}, which Linux cannot number`,
    );
  }
  return ((minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}

/** A symbolic link's target. @throws IndexError `limit_exceeded` when Linux could not show it */
export function checkedTarget(entry: TocEntry): string {
  const target = entry.link ?? "";
  if (target.length > 0 && target.length <= targetBytesMax && !target.includes("\0")) return target;
  throw new IndexError(
    "limit_exceeded",
    `the symbolic link ${JSON.stringify(shown(entry.path))} has a target of ${target.length} bytes that Linux could not show`,
  );
}

/** @throws IndexError `bad_layer` for what is no name of a file, `limit_exceeded` for one that is too long for Linux */
export function assertName(name: string, path: () => string): void {
  if (name === "" || name === "." || name === ".." || name.includes("\0")) {
    throw new IndexError("bad_layer", `a layer names ${JSON.stringify(shown(path()))}, which is no path`);
  }
  if (name.length <= nameBytesMax) return;
  const message = `${JSON.stringify(shown(path()))} leads to a name that is longer than ${nameBytesMax} bytes`;
  throw new IndexError("limit_exceeded", message, { next: "Build the image with shorter file names." });
}

/** The error for a hardlink whose target turned out to be a directory. */
export function linkToDirectory(entry: { readonly path: string; readonly link?: string }): IndexError {
  const path = JSON.stringify(shown(entry.path));
  return new IndexError(
    "bad_layer",
    `the hardlink ${path} names the directory ${JSON.stringify(shown(entry.link ?? ""))}`,
    {
      next: "Build the image again; no engine could unpack this layer.",
    },
  );
}

/** A path as messages show it: its beginning. */
export function shown(path: string): string {
  return path.length > 200 ? `${path.slice(0, 200)}…` : path;
}
