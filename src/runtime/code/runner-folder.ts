import { createHash, randomUUID } from "node:crypto";
import { chmod, mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errnoOf } from "../../std/error.ts";

/**
 * Writes the runner's files below `root`, in a folder that is named by what is in them: a worker of another version has
 * another, and containers that run keep theirs. Returns its path.
 */
export async function writeRunner(root: string, files: Readonly<Record<string, string>>): Promise<string> {
  const folder = join(root, runnerName(files));
  if (await isThere(folder)) return folder;
  await mkdir(root, { recursive: true, mode: 0o755 });
  const beside = join(root, `new-${randomUUID()}`);
  await makeFolder(beside);
  for (const [name, text] of Object.entries(files)) {
    const path = join(beside, name);
    await makeFolder(dirname(path));
    await writeFile(path, text, { mode: 0o644 });
    await chmod(path, 0o644);
  }
  await rename(beside, folder);
  return folder;
}

/** Removes the runners of other versions, and what was half written. */
export async function removeOtherRunners(
  root: string,
  files: Readonly<Record<string, string>>,
): Promise<void> {
  for (const name of await readdir(root))
    if (name !== runnerName(files)) await rm(join(root, name), { recursive: true, force: true });
}

function runnerName(files: Readonly<Record<string, string>>): string {
  const sorted = Object.entries(files).toSorted(([one], [other]) => (one < other ? -1 : 1));
  return createHash("sha256").update(JSON.stringify(sorted)).digest("hex").slice(0, 16);
}

/** Whatever our umask: the container's user reads them. */
async function makeFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o755 });
  await chmod(path, 0o755);
}

async function isThere(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}
