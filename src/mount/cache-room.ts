import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { logger } from "../std/log.ts";
import { diskRoom } from "./disk-room.ts";
import { FileLock } from "./file-lock.ts";

interface Entry {
  readonly name: string;
  readonly usedBytes: number;
  readonly lastUsedMs: number;
}

/**
 * How much the cache may have: its quota, and what its disk must keep free. Both are goals: layers in use are never evicted
 * for them, readers are served whatever they say; the background and what builds keep stop at them.
 */
export class CacheRoom {
  readonly #dir: string;
  readonly #quotaBytes: number | undefined;
  #usedBytes = 0;
  #evicting: Promise<void> | undefined;

  /** @param dir holds the layers' files */
  constructor(dir: string, quotaBytes: number | undefined) {
    this.#dir = dir;
    this.#quotaBytes = quotaBytes;
  }

  /** Counts bytes that were added, and evicts when that exceeds the quota. */
  grew(bytes: number): void {
    this.#usedBytes += bytes;
    if (this.#isOverQuota()) void this.evict();
  }

  /** Whether more may be kept without need: below the quota and the disk's reserve, after evicting what can be. */
  async hasRoom(): Promise<boolean> {
    if (await this.#fits()) return true;
    await this.evict();
    return await this.#fits();
  }

  async #fits(): Promise<boolean> {
    return !this.#isOverQuota() && (await this.#missingBytes()) <= 0;
  }

  /** Removes the layers least recently used, and not in use, until quota and reserve are kept. Never throws. */
  evict(): Promise<void> {
    this.#evicting ??= this.#evict(this.#quotaBytes ?? Number.POSITIVE_INFINITY).finally(() => {
      this.#evicting = undefined;
    });
    return this.#evicting;
  }

  #isOverQuota(): boolean {
    return this.#quotaBytes !== undefined && this.#usedBytes > this.#quotaBytes;
  }

  /** What the cache's disk has less than its reserve; negative when it has more. */
  async #missingBytes(): Promise<number> {
    const { freeBytes, reserveBytes } = await diskRoom(this.#dir);
    return reserveBytes - freeBytes;
  }

  async #evict(quotaBytes: number): Promise<void> {
    try {
      let missingBytes = await this.#missingBytes();
      if (quotaBytes === Number.POSITIVE_INFINITY && missingBytes <= 0) return;
      const entries = await this.#entries();
      let usedBytes = entries.reduce((sum, entry) => sum + entry.usedBytes, 0);
      for (const entry of entries.sort((a, b) => a.lastUsedMs - b.lastUsedMs)) {
        if (usedBytes <= quotaBytes && missingBytes <= 0) break;
        if (!(await this.#remove(entry.name))) continue;
        usedBytes -= entry.usedBytes;
        missingBytes -= entry.usedBytes;
        logger("mount").info("evicted a layer from the cache", { layer: entry.name, bytes: entry.usedBytes });
      }
      this.#usedBytes = usedBytes;
    } catch (thrown) {
      logger("mount").warning("the cache could not be cleaned", { dir: this.#dir, error: thrown });
    }
  }

  async #entries(): Promise<Entry[]> {
    const entries: Entry[] = [];
    for (const file of await readdir(this.#dir)) {
      if (!file.endsWith(".blob")) continue;
      const name = file.slice(0, -".blob".length);
      const blob = await stat(join(this.#dir, file)).catch(() => undefined);
      if (blob === undefined) continue;
      const map = await stat(join(this.#dir, `${name}.map`)).catch(() => undefined);
      entries.push({ name, usedBytes: blob.blocks * 512, lastUsedMs: map?.mtimeMs ?? 0 });
    }
    return entries;
  }

  /** Removes a layer unless somebody uses it. */
  async #remove(name: string): Promise<boolean> {
    const lock = await FileLock.takeAlone(join(this.#dir, `${name}.lock`));
    if (lock === undefined) return false;
    try {
      // The map first: a blob without a map is empty to whoever finds it, a map without a blob would lie.
      for (const suffix of ["map", "blob", "lock"])
        await rm(join(this.#dir, `${name}.${suffix}`), { force: true });
      return true;
    } finally {
      await lock.release();
    }
  }
}
