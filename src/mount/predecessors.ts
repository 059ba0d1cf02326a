import { join } from "node:path";
import { loopDetach, umount } from "../native/linux.ts";
import { listLoops, readMounts } from "../native/mountinfo.ts";
import { errnoOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { toMountError } from "./errno.ts";
import type { FileLock } from "./file-lock.ts";
import type { MountHolder } from "./holder.ts";
import type { OrphanedMount } from "./image-mount.ts";
import type { LayerCache } from "./layer-cache.ts";
import { blobsDir } from "./layered-mount.ts";
import { listRecords, type MountRecord, removeMountDir } from "./mount-record.ts";

/** A mount that an earlier process left under the state directory. */
export interface StaleMount {
  readonly root: string;
  readonly workspace: string;
  readonly manifestDigest: string;
  /** Its tree can still be read: it needs no process, or this one serves it now. What is not alive is gone already. */
  readonly alive: boolean;
}

interface Predecessor {
  readonly dir: string;
  readonly record: MountRecord;
  /** On its cache files. */
  locks: readonly FileLock[];
}

/**
 * What earlier processes left mounted. A mount of complete layers lives on, until it is taken over or cleared. One that
 * was served is an orphan when the holder has its connection: it has to be taken over at once, its readers wait. Any
 * other died with its server and is cleared when it is found.
 */
export class Predecessors {
  readonly #alive = new Map<string, Predecessor>();
  readonly #found: Omit<StaleMount, "alive">[] = [];
  readonly #dead = new Set<string>();
  readonly #orphans: OrphanedMount[] = [];

  private constructor() {}

  /** @param mountsDir the folder of mounts; it must be locked by the caller */
  static async survey(mountsDir: string, holder: MountHolder | undefined): Promise<Predecessors> {
    const predecessors = new Predecessors();
    const mounted = new Map((await readMounts()).map((entry) => [entry.mountpoint, entry]));
    for (const { dir, record } of await listRecords(mountsDir)) {
      const root = record?.root ?? join(dir, "root");
      if (record !== undefined) {
        const { workspace, manifestDigest } = record;
        predecessors.#found.push({ root, workspace, manifestDigest });
      }
      const tree = mounted.get(root);
      const blobs = mounted.get(blobsDir(dir));
      if (record === undefined || tree?.type !== "erofs") await predecessors.bury(dir, root);
      else if (record.served === undefined) predecessors.#alive.set(root, { dir, record, locks: [] });
      else if (blobs !== undefined && holder?.has(dir))
        predecessors.#orphans.push({
          dir,
          record,
          connectionMinor: Number(blobs.device.split(":")[1]),
          transport: tree.source.startsWith("/dev/loop") ? "loop" : "file",
        });
      else await predecessors.bury(dir, root);
    }
    await detachLoops(`${mountsDir}/`);
    return predecessors;
  }

  /** Keeps the cache files of the living from being evicted. */
  async lockFiles(cache: LayerCache): Promise<void> {
    for (const living of this.#alive.values()) living.locks = await cache.hold(living.record.files);
  }

  /** Everything that was found, the dead (cleared by now) and the living. */
  list(): readonly StaleMount[] {
    return this.#found.map((mount) => ({ ...mount, alive: !this.#dead.has(mount.root) }));
  }

  /** The mounts whose readers wait for a server. */
  orphans(): readonly OrphanedMount[] {
    return this.#orphans;
  }

  /** A mount cannot be read any more: it is cleared. */
  async bury(dir: string, root: string): Promise<void> {
    this.#dead.add(root);
    await clear(dir, root);
  }

  /** Gives a living mount away; `undefined` when there is none (any more). */
  take(root: string): Predecessor | undefined {
    const found = this.#alive.get(root);
    this.#alive.delete(root);
    return found;
  }

  /** Unmounts a living mount that nobody took. Does nothing for others. */
  async clear(root: string): Promise<void> {
    const found = this.take(root);
    if (found === undefined) return;
    await clear(found.dir, root);
    for (const lock of found.locks) await lock.release();
  }

  /** The roots of the living ones that nobody took yet. */
  remaining(): string[] {
    return [...this.#alive.keys()];
  }
}

async function clear(dir: string, root: string): Promise<void> {
  try {
    await unmountAll(root);
    await unmountAll(blobsDir(dir));
    await removeMountDir(dir, root);
    logger("mount").info("cleared a mount that an earlier process left", { root });
  } catch (thrown) {
    logger("mount").warning("a mount that an earlier process left could not be cleared", {
      root,
      error: thrown,
    });
  }
}

/** Unmounts whatever is stacked at a path. What something still uses is taken out of sight: it ends with its users. */
async function unmountAll(path: string): Promise<void> {
  for (;;) {
    try {
      await umount(path, { detach: true });
    } catch (thrown) {
      const errno = errnoOf(thrown);
      if (errno === "EINVAL" || errno === "ENOENT") return;
      throw toMountError(thrown, `unmounting ${path}`);
    }
  }
}

/** A process that died between attaching loop devices and mounting leaves them behind. */
async function detachLoops(prefix: string): Promise<void> {
  for (const { device, backingFile } of await listLoops())
    if (backingFile.startsWith(prefix)) await loopDetach(device).catch(() => undefined);
}
