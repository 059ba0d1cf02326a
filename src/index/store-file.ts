import { randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { copyFile, open, rename, rm, stat } from "node:fs/promises";
import { errnoOf } from "../std/error.ts";
import { IndexError, writeError } from "./error.ts";

/** Files whose hash is remembered; enough for a thousand images in use. */
const rememberedMax = 16384;

/**
 * Hashes of files, remembered for as long as a file's inode, size and times stay the same: a store's file is read through
 * once per process, not once per mount.
 */
export class FileHashes {
  readonly #known = new Map<string, string>();

  /** The SHA-256 (hex) of a file; `undefined` when there is none. */
  async sha256(path: string): Promise<string | undefined> {
    const key = await identity(path);
    if (key === undefined) return undefined;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const hasher = new Bun.CryptoHasher("sha256");
    for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 }))
      hasher.update(chunk as Buffer);
    const hash = hasher.digest("hex");
    if ((await identity(path)) === key) this.#remember(key, hash);
    return hash;
  }

  #remember(key: string, hash: string): void {
    const oldest = this.#known.keys().next();
    if (this.#known.size >= rememberedMax && oldest.done !== true) this.#known.delete(oldest.value);
    this.#known.set(key, hash);
  }
}

async function identity(path: string): Promise<string | undefined> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/** @throws IndexError `corrupt_index`, which names the file, when its bytes are not the ones with this SHA-256 (hex) */
export async function verifyFile(hashes: FileHashes, path: string, sha256: string): Promise<void> {
  const found = await hashes.sha256(path);
  if (found === sha256) return;
  const what = found === undefined ? "is missing" : "does not have the bytes that it was written with";
  throw new IndexError("corrupt_index", `the index file ${path} ${what}`, { next: "Build the image again." });
}

/** Moves a file to a place of the store, durably; the bytes are copied when it comes from another file system. */
export async function moveFile(from: string, to: string): Promise<void> {
  try {
    await syncFile(from);
    try {
      await rename(from, to);
    } catch (error) {
      if (errnoOf(error) !== "EXDEV") throw error;
      await copyAcross(from, to);
    }
  } catch (error) {
    throw writeError(to, error);
  }
}

/** A name beside `path` that nobody else uses. */
export function besideName(path: string): string {
  return `${path}.tmp-${randomBytes(8).toString("hex")}`;
}

async function copyAcross(from: string, to: string): Promise<void> {
  const beside = besideName(to);
  try {
    await copyFile(from, beside);
    await syncFile(beside);
    await rename(beside, to);
  } finally {
    await rm(beside, { force: true });
  }
  await rm(from, { force: true });
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
