import { createHash, randomBytes } from "node:crypto";
import { chmod, mkdir, open, readdir, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { zstdDecompress } from "node:zlib";
import archivePath from "../../native/out/postgres.tar.zst" with { type: "file" };
import { errnoOf } from "../std/error.ts";
import { readUstar, type TarEntry } from "./ustar.ts";

/**
 * Unpacks the PostgreSQL that this executable carries into `<parent>/server-<content hash>`, unless it is there
 * already, and returns that folder (`bin/`, `lib/`, `share/`). It appears whole or not at all.
 */
export async function unpackServer(parent: string, durable: boolean): Promise<string> {
  const packed = await Bun.file(archivePath).bytes();
  const name = `server-${createHash("sha256").update(packed).digest("hex").slice(0, 16)}`;
  const target = join(parent, name);
  if (await exists(target)) return target;
  const beside = join(parent, `.${name}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`);
  try {
    await mkdir(beside, { recursive: true });
    await chmod(beside, 0o755);
    const archive: Uint8Array = await promisify(zstdDecompress)(packed);
    for (const entry of readUstar(archive)) await writeEntry(beside, entry);
    // Before the rename: a power cut must not leave the folder with empty files in it.
    if (durable) await syncFiles(beside);
    await rename(beside, target);
  } catch (error) {
    await rm(beside, { recursive: true, force: true });
    const lostRace = errnoOf(error) === "ENOTEMPTY" || errnoOf(error) === "EEXIST";
    if (!lostRace) throw error;
  }
  return target;
}

/** Removes the servers of other versions, and what starts that died left half unpacked or half made. */
export async function removeLeftovers(parent: string, current: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const path = join(parent, name);
    const maker = /^\.(?:server|data).*\.(\d+)\.[0-9a-f]{8}\.tmp$/.exec(name)?.[1];
    const halfMade = maker !== undefined && !(await exists(`/proc/${maker}`));
    const otherServer = /^server-[0-9a-f]{16}$/.test(name) && path !== current;
    if (halfMade || otherServer) await rm(path, { recursive: true, force: true });
  }
}

async function writeEntry(folder: string, entry: TarEntry): Promise<void> {
  if (entry.name === "") return;
  const path = join(folder, entry.name);
  if (entry.type === "symlink") return symlink(entry.link, path);
  if (entry.type === "dir") {
    await mkdir(path, { recursive: true });
    return chmod(path, 0o755);
  }
  const file = await open(path, "wx", 0o644);
  try {
    await file.writeFile(entry.data);
    await file.chmod(entry.mode & 0o755);
  } finally {
    await file.close();
  }
}

/** All at once, so that the file system can commit them together. */
async function syncFiles(folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  await Promise.all(
    paths.map(async (path) => {
      const file = await open(path, "r");
      await file.sync().finally(() => file.close());
    }),
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}
