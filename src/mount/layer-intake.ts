import { randomUUID } from "node:crypto";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { BlobPlace } from "../index/layer-blob.ts";
import type { LayerKeeper } from "../index/layer-keeper.ts";
import type { IndexedLayer } from "../index/types.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { diskRoom } from "./disk-room.ts";
import { FileLock } from "./file-lock.ts";
import { LayerCache } from "./layer-cache.ts";

/**
 * Keeps the contents of layers that are indexed: their blobs are written to `incoming/` below the cache's folder and become
 * the layers' cache files by a rename. Each intake has a folder there with a lock, so that the next one finds and removes
 * what a process left that died.
 */
export class LayerIntake implements LayerKeeper {
  readonly #cache: LayerCache;
  readonly #quotaBytes: number | undefined;
  readonly #dir: string;
  readonly #lock: FileLock;
  #count = 0;

  private constructor(cache: LayerCache, quotaBytes: number | undefined, dir: string, lock: FileLock) {
    this.#cache = cache;
    this.#quotaBytes = quotaBytes;
    this.#dir = dir;
    this.#lock = lock;
  }

  /** The arguments are those of {@link LayerCache.open}; any number of intakes and mounts may share a cache. */
  static async open(cacheDir: string, quotaBytes: number | undefined): Promise<LayerIntake> {
    const cache = await LayerCache.open(cacheDir, quotaBytes);
    const incoming = resolve(cacheDir, "incoming");
    await mkdir(incoming, { recursive: true, mode: 0o700 });
    for (const name of await readdir(incoming)) await removeDead(incoming, name);
    const name = randomUUID();
    const lock = await FileLock.share(join(incoming, `${name}.lock`));
    await mkdir(join(incoming, name), { mode: 0o700 });
    return new LayerIntake(cache, quotaBytes, join(incoming, name), lock);
  }

  async place({ digest }: Descriptor): Promise<BlobPlace | undefined> {
    try {
      if (!(await this.#cache.room.hasRoom())) return undefined;
      // Whoever deletes the cache's folder under a running process deletes this one, too.
      await mkdir(this.#dir, { recursive: true, mode: 0o700 });
      const { freeBytes, reserveBytes: freeBytesMin } = await diskRoom(this.#dir);
      const room = freeBytes - freeBytesMin;
      if (room <= 0) return undefined;
      this.#count += 1;
      return {
        path: join(this.#dir, `${this.#count}.blob`),
        sizeBytesMax: Math.min(room, this.#quotaBytes ?? room),
        freeBytesMin,
      };
    } catch (thrown) {
      this.#tellNotKept(digest, messageOf(thrown));
      return undefined;
    }
  }

  async keep(layer: IndexedLayer, spanPath: string, place: BlobPlace): Promise<void> {
    try {
      if ((await stat(place.path).catch(() => undefined)) === undefined) return;
      if (await this.#cache.import(layer, spanPath, place.path)) return;
      this.#tellNotKept(layer.digest, "it is in use, and being filled by its user");
    } catch (thrown) {
      this.#tellNotKept(layer.digest, messageOf(thrown));
    } finally {
      await rm(place.path, { force: true });
    }
  }

  /** Removes what was not taken in. */
  async close(): Promise<void> {
    await rm(this.#dir, { recursive: true, force: true });
    await rm(`${this.#dir}.lock`, { force: true });
    await this.#lock.release();
  }

  #tellNotKept(layer: string, reason: string): void {
    logger("mount").warning("a layer's contents were not kept when it was indexed", { layer, reason });
  }
}

/** Removes the folder of an intake whose process is gone. */
async function removeDead(incoming: string, name: string): Promise<void> {
  if (!name.endsWith(".lock")) return;
  const path = join(incoming, name);
  const lock = await FileLock.takeAlone(path);
  if (lock === undefined) return;
  try {
    await rm(path.slice(0, -".lock".length), { recursive: true, force: true });
    await rm(path, { force: true });
  } finally {
    await lock.release();
  }
}
