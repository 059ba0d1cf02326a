import { mkdir, stat, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import type { IndexedLayer } from "../index/types.ts";
import { LayerBlob } from "../native/blob.ts";
import { digestOf } from "../reference/digest.ts";
import { errnoOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { CacheRoom } from "./cache-room.ts";
import { toMountError } from "./errno.ts";
import { MountError } from "./error.ts";
import { FileLock } from "./file-lock.ts";

/** A layer's place in the cache, open and locked against eviction. */
export class CachedLayer {
  readonly layer: IndexedLayer;
  /** The aligned blob: a sparse file of the blob's size. */
  readonly path: string;
  readonly blob: LayerBlob;
  readonly #mapPath: string;
  readonly #lock: FileLock;
  #closed: Promise<void> | undefined;
  #released: Promise<void> | undefined;

  constructor(fields: {
    readonly layer: IndexedLayer;
    readonly path: string;
    readonly mapPath: string;
    readonly blob: LayerBlob;
    readonly lock: FileLock;
  }) {
    this.layer = fields.layer;
    this.path = fields.path;
    this.blob = fields.blob;
    this.#mapPath = fields.mapPath;
    this.#lock = fields.lock;
  }

  /** Gives up writing to the layer, so that another process may; it stays locked against eviction. */
  close(): Promise<void> {
    this.#closed ??= (async () => this.blob.release())();
    return this.#closed;
  }

  /** Marks the layer as just used and lets it be evicted. Only once nothing mounted uses it. */
  release(): Promise<void> {
    this.#released ??= (async () => {
      await this.close();
      await touch(this.#mapPath);
      await this.#lock.release();
    })();
    return this.#released;
  }
}

const processesMax = 8;
const busyTries = 400;
const busyWaitMs = 5;

/** Spans of a layer that are in the cache, and the disk that they take. */
export interface LayerLook {
  readonly spansCached: number;
  readonly cachedBytes: number;
}

/**
 * The layers' blobs on the local disk: `layers/sha256/<layer>.<span file>.blob` with a `.map` of the spans that are there,
 * and a `.lock` that every user holds shared and eviction takes alone. Only verified bytes are in it, so mounts of
 * different workspaces and processes share it: a build has proved that its registry has each layer whole. The span file
 * is part of the name because it decides what lies where; so is the registry, of a layer that no build has read as a whole.
 */
export class LayerCache {
  readonly #dir: string;
  readonly #verify: "stamp" | "all";
  readonly room: CacheRoom;

  private constructor(dir: string, quotaBytes: number | undefined, verify: "stamp" | "all") {
    this.#dir = dir;
    this.#verify = verify;
    this.room = new CacheRoom(dir, quotaBytes);
  }

  /**
   * @param quotaBytes disk that the cache should not exceed; `undefined`: no limit
   * @param verify `all`: read and check what is there before it is served, whatever its stamp says
   */
  static async open(
    cacheDir: string,
    quotaBytes: number | undefined,
    verify: "stamp" | "all" = "stamp",
  ): Promise<LayerCache> {
    const cache = new LayerCache(join(cacheDir, "layers", "sha256"), quotaBytes, verify);
    await mkdir(cache.#dir, { recursive: true, mode: 0o700 });
    return cache;
  }

  /** Whether a layer should be read by way of us even when it is complete: we see what others do to its file, EROFS does not. */
  get watches(): boolean {
    return this.#verify === "all";
  }

  /**
   * Opens a layer's blob, made empty when it is not there. One that is all there but cannot be believed unread is read
   * through first: whether it is complete decides how it is mounted.
   */
  async use(layer: IndexedLayer, spanPath: string): Promise<CachedLayer> {
    for (const name of namesOf(layer)) {
      const cached = await this.#tryUse(name, layer, spanPath);
      if (cached === undefined) continue;
      await this.#prove(cached);
      return cached;
    }
    throw new MountError("busy", `layer ${layer.digest} is served by too many processes from ${this.#dir}`, {
      layer: layer.digest,
      next: "Give one of them a cache directory of its own.",
    });
  }

  /** What is there of a layer. `undefined`: another process writes it. */
  async look(layer: IndexedLayer, spanPath: string): Promise<LayerLook | undefined> {
    const [name = ""] = namesOf(layer);
    const found = await stat(join(this.#dir, `${name}.blob`)).catch(() => undefined);
    if (found === undefined) return { spansCached: 0, cachedBytes: 0 };
    const cached = await this.#tryUse(name, layer, spanPath);
    if (cached === undefined) return undefined;
    const look = { spansCached: cached.blob.presentCount(), cachedBytes: found.blocks * 512 };
    await cached.release();
    return look;
  }

  /**
   * Opens the blob of a mount that outlived its process, at the path that it had: the kernel, or the mount's next server,
   * reads that one. Its writer before may be on its last way out, so that is waited for.
   * @throws MountError `busy`; `corrupt_index` when the path is not one of the layer's
   */
  async useAgain(layer: IndexedLayer, spanPath: string, path: string): Promise<CachedLayer> {
    const name = [...namesOf(layer)].find((one) => path === join(this.#dir, `${one}.blob`));
    if (name === undefined)
      throw new MountError("corrupt_index", `${path} is no blob of layer ${layer.digest} in this cache`, {
        layer: layer.digest,
      });
    for (let attempt = 0; attempt < busyTries; attempt += 1) {
      const cached = await this.#tryUse(name, layer, spanPath);
      if (cached !== undefined) return cached;
      await wait(busyWaitMs);
    }
    throw new MountError("busy", `${path} is written by another process`, { layer: layer.digest });
  }

  /**
   * Makes a whole, verified blob the layer's, in place of what there is. `sourcePath` must be on the file system of the
   * cache; it moves away. False, with the source left where it is, when somebody is writing to the layer.
   * @throws MountError `no_space`, `corrupt_index`, `mount_failed`
   */
  async import(layer: IndexedLayer, spanPath: string, sourcePath: string): Promise<boolean> {
    const [name = ""] = namesOf(layer);
    const lock = await this.#share(name);
    try {
      const { blocks } = await stat(sourcePath);
      const mapPath = join(this.#dir, `${name}.map`);
      const cachePath = join(this.#dir, `${name}.blob`);
      await LayerBlob.import({ spanPath, sourcePath, cachePath, mapPath });
      await touch(mapPath);
      this.room.grew(blocks * 512);
      return true;
    } catch (thrown) {
      if (errnoOf(thrown) === "EBUSY") return false;
      throw toMountError(thrown, `keeping layer ${layer.digest} in the cache ${this.#dir}`, layer.digest);
    } finally {
      await lock.release();
    }
  }

  /** Keeps complete layers of a mount that outlived its process from being evicted, until the locks are released. */
  async hold(files: readonly string[]): Promise<FileLock[]> {
    const inCache = files.filter((file) => dirname(file) === this.#dir);
    return await Promise.all(inCache.map((file) => FileLock.share(file.replace(/\.blob$/, ".lock"))));
  }

  async #tryUse(name: string, layer: IndexedLayer, spanPath: string): Promise<CachedLayer | undefined> {
    const path = join(this.#dir, `${name}.blob`);
    const mapPath = join(this.#dir, `${name}.map`);
    const lock = await this.#share(name);
    try {
      const blob = LayerBlob.open({ spanPath, cachePath: path, mapPath, verify: this.#verify });
      await touch(mapPath);
      return new CachedLayer({ layer, path, mapPath, blob, lock });
    } catch (thrown) {
      await lock.release();
      if (errnoOf(thrown) === "EBUSY") return undefined;
      throw toMountError(thrown, `opening layer ${layer.digest} in the cache ${this.#dir}`, layer.digest);
    }
  }

  async #share(name: string): Promise<FileLock> {
    // Somebody may have deleted the whole cache under us.
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    return await FileLock.share(join(this.#dir, `${name}.lock`));
  }

  async #prove(cached: CachedLayer): Promise<void> {
    const { blob, layer } = cached;
    if (blob.complete || blob.presentCount() < blob.spanCount) return;
    try {
      const dropped = await blob.prove();
      if (dropped > 0) logDamage(layer.digest, cached.path, dropped);
    } catch (thrown) {
      await cached.release();
      throw toMountError(thrown, `checking layer ${layer.digest} in the cache ${this.#dir}`, layer.digest);
    }
  }
}

/**
 * One process at a time writes to a blob. Others, if they come while it does, keep a blob of their own beside it rather
 * than none.
 */
function* namesOf(layer: IndexedLayer): Generator<string> {
  const { digest, spanSha256, registry } = layer;
  const scope =
    registry === undefined
      ? spanSha256
      : digestOf(Buffer.from(`${spanSha256} ${registry}`)).slice("sha256:".length);
  const name = `${digest.replace("sha256:", "")}.${scope.slice(0, 32)}`;
  yield name;
  for (let other = 1; other < processesMax; other += 1) yield `${name}.${other}`;
}

function logDamage(layer: string, file: string, spans: number): void {
  logger("mount").warning("the cache of a layer was damaged: what is not as it was stored is fetched again", {
    layer,
    file,
    spans,
  });
}

async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => undefined);
}
