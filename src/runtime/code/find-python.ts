import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { RuntimeError } from "../error.ts";
import { findInRoot } from "../files/inside-root.ts";

/** What the runner needs of 3.x. */
const minorMin = 8;
const plainNames = ["python3", "python"];
const versioned = /^python3\.(\d{1,3})$/;
const foldersMax = 64;

/**
 * The container's path of a Python that a runner can be started with: by the image's search path `python3`, `python`, then
 * the newest `python3.N`. What its own name says to be older than 3.8 is passed over. A name is given as it was found, links
 * not followed: a virtual environment is what lies beside it.
 *
 * @param root the image's tree; its links are followed inside of it
 * @param path as `$PATH`
 * @throws RuntimeError `no_python`
 */
export async function findPython(root: string, path: string): Promise<string> {
  const folders = [...new Set(path.split(":").filter((folder) => folder.startsWith("/")))].slice(
    0,
    foldersMax,
  );
  let tooOld: string | undefined;
  for (const name of plainNames) {
    for (const folder of folders) {
      const found = await executable(root, join(folder, name));
      if (found === undefined) continue;
      if (!isTooOld(found)) return join(folder, name);
      tooOld ??= found;
    }
  }
  const newest = await newestVersioned(root, folders);
  if (newest !== undefined) return newest;
  const where = folders.join(", ") || "an empty search path";
  throw new RuntimeError(
    "no_python",
    tooOld === undefined
      ? `the image has no Python (looked for python3, python, python3.N in ${where})`
      : `the image has no Python 3.8 or newer (found ${tooOld})`,
    { next: "Use an image with Python 3.8 or newer, or deploy a command with --port." },
  );
}

async function newestVersioned(root: string, folders: readonly string[]): Promise<string | undefined> {
  const candidates: { readonly path: string; readonly minor: number }[] = [];
  for (const folder of folders) {
    const place = await findInRoot(root, folder);
    for (const name of place === undefined ? [] : await readdir(place).catch(() => [])) {
      const minor = Number(versioned.exec(name)?.[1] ?? -1);
      if (minor >= minorMin) candidates.push({ path: join(folder, name), minor });
    }
  }
  // The first of a version counts, as a search path has it.
  for (const { path } of candidates.toSorted((one, other) => other.minor - one.minor))
    if ((await executable(root, path)) !== undefined) return path;
  return undefined;
}

/** The last name of the file that a path leads to, if that can be executed. */
async function executable(root: string, path: string): Promise<string | undefined> {
  const place = await findInRoot(root, path);
  if (place === undefined) return undefined;
  const { mode } = await stat(place);
  const isProgram = (mode & 0o170000) === 0o100000 && (mode & 0o111) !== 0;
  return isProgram ? basename(place) : undefined;
}

function isTooOld(name: string): boolean {
  const minor = versioned.exec(name)?.[1];
  return /^python2(\.\d+)?$/.test(name) || (minor !== undefined && Number(minor) < minorMin);
}
