import { chmod, chown, lstat, mkdir, readlink } from "node:fs/promises";
import { join } from "node:path";
import { readInside } from "../../native/linux.ts";
import { errnoOf } from "../../std/error.ts";
import { RuntimeError } from "../error.ts";

const linksMax = 40;
/** Linux takes no longer path (PATH_MAX, the NUL at its end included); nothing is made for one. */
const pathBytesMax = 4095;
const wrongWays: Readonly<Record<string, string>> = {
  ENOTDIR: "leads through a file",
  ELOOP: "has too many symbolic links",
  ENAMETOOLONG: "has a name that is too long",
};

interface Place {
  /** The host's path; no part of it below the root is a symbolic link. */
  readonly path: string;
  /** Parts at the end that do not exist. */
  readonly missing: readonly string[];
}

/**
 * Finds `path` as a process with `root` as its root directory would: symbolic links are followed inside of the root
 * only, `..` stops at it. Safe as long as nothing else writes to the tree.
 * @throws RuntimeError `bad_config` for too many links, a way that leads through a file, a name that Linux cannot have
 */
async function locate(root: string, path: string): Promise<Place> {
  assertPath(path);
  const parts = path.split("/").reverse();
  const found: string[] = [];
  let links = 0;
  while (parts.length > 0) {
    const part = parts.pop() ?? "";
    if (part === "" || part === ".") continue;
    if (part === "..") {
      found.pop();
      continue;
    }
    const candidate = join(root, ...found, part);
    const stat = await lstatOrNothing(candidate, path);
    if (stat === undefined) {
      const missing = [part, ...parts.reverse().filter((rest) => rest !== "" && rest !== ".")];
      if (missing.includes(".."))
        throw new RuntimeError("bad_config", `${path} leads through a directory that is missing`);
      return { path: join(root, ...found), missing };
    }
    if (stat.isSymbolicLink()) {
      links += 1;
      if (links > linksMax)
        throw new RuntimeError("bad_config", `${path} in the image ${wrongWays["ELOOP"]}`);
      const target = await readlink(candidate);
      if (target.startsWith("/")) found.length = 0;
      parts.push(...target.split("/").reverse());
      continue;
    }
    found.push(part);
  }
  return { path: join(root, ...found), missing: [] };
}

/**
 * The host's path of what `path` leads to inside of the root, with no link left in it; `undefined` when there is nothing, or
 * no way.
 */
export async function findInRoot(root: string, path: string): Promise<string | undefined> {
  try {
    const place = await locate(root, path);
    return place.missing.length === 0 ? place.path : undefined;
  } catch (error) {
    if (error instanceof RuntimeError && error.code === "bad_config") return undefined;
    throw error;
  }
}

async function lstatOrNothing(candidate: string, path: string) {
  try {
    return await lstat(candidate);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT") return undefined;
    throw badWay(path, errno) ?? error;
  }
}

function badWay(path: string, errno: string | undefined): RuntimeError | undefined {
  const what = wrongWays[errno ?? ""];
  if (what === undefined) return undefined;
  const shown = path.length > 200 ? `${path.slice(0, 200)}…` : path;
  return new RuntimeError("bad_config", `${shown} in the image ${what}`);
}

/** @throws RuntimeError `bad_config` */
function assertPath(path: string): void {
  if (path.includes("\0")) {
    const shown = JSON.stringify(path.slice(0, 200));
    throw new RuntimeError("bad_config", `${shown}, which the image names, has a NUL in it`);
  }
  if (Buffer.byteLength(path) > pathBytesMax) throw badWay(path, "ENAMETOOLONG");
}

/**
 * The text of a regular file inside of the root; `undefined` when nothing is there.
 * @throws RuntimeError `bad_config` when it is longer than `sizeMax` bytes, or something else than a file: whoever reads it
 *   after us, without looking, would read a device without end
 */
export async function readFileInRoot(
  root: string,
  path: string,
  sizeMax: number,
): Promise<string | undefined> {
  assertPath(path);
  try {
    return (await readInside(root, path, sizeMax)).toString();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT") return undefined;
    if (errno === "EISDIR") throw new RuntimeError("bad_config", `${path} in the image is no regular file`);
    if (errno === "EFBIG")
      throw new RuntimeError("bad_config", `${path} in the image is larger than ${sizeMax} bytes`);
    throw badWay(path, errno) ?? error;
  }
}

/**
 * Where a directory inside of the root is on the host, without links; `undefined` when it is not there.
 * @throws RuntimeError `bad_config` when something other than a directory is there
 */
export async function findDirectoryInRoot(root: string, path: string): Promise<string | undefined> {
  const place = await locate(root, path);
  if (place.missing.length > 0) return undefined;
  if ((await lstat(place.path)).isDirectory()) return place.path;
  throw new RuntimeError("bad_config", `${path} in the image is not a directory`);
}

/**
 * Makes the directory inside of the root with all that leads to it; what is made belongs to `owner`.
 * @throws RuntimeError `bad_config` when something other than a directory is there
 */
export async function makeDirectoryInRoot(
  root: string,
  path: string,
  owner: { readonly uid: number; readonly gid: number },
): Promise<void> {
  const place = await locate(root, path);
  if (!(await lstat(place.path)).isDirectory()) {
    throw new RuntimeError("bad_config", `${path} in the image is not a directory`);
  }
  let directory = place.path;
  for (const part of place.missing) {
    directory = join(directory, part);
    try {
      await mkdir(directory);
    } catch (error) {
      throw badWay(path, errnoOf(error)) ?? error;
    }
    await chmod(directory, 0o755);
    await chown(directory, owner.uid, owner.gid);
  }
}
