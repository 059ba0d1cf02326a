import { join } from "node:path";
import { loopDetach, umount } from "../native/linux.ts";
import { listLoops, readMounts } from "../native/mountinfo.ts";
import { errnoOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { toMountError } from "./errno.ts";
import { listRecords, type MountRecord, removeMountDir } from "./mount-record.ts";

/** A mount that an earlier process left under the state directory. */
export interface StaleMount {
  readonly root: string;
  readonly workspace: string;
  readonly manifestDigest: string;
  /** Its tree can still be read: it needs no process. What is not alive is gone already. */
  readonly alive: boolean;
}

interface Predecessor {
  readonly dir: string;
  readonly record: MountRecord;
}

/**
 * What earlier processes left mounted. A mount that was served died with its server: it is cleared when it is found.
 * A mount of complete layers lives on, until it is taken over or cleared.
 */
export class Predecessors {
  readonly #alive = new Map<string, Predecessor>();
  readonly #found: StaleMount[] = [];

  private constructor() {}

  /** @param mountsDir the folder of mounts; it must be locked by the caller */
  static async survey(mountsDir: string): Promise<Predecessors> {
    const predecessors = new Predecessors();
    const mounted = await readMounts();
    const trees = new Set(mounted.filter(({ type }) => type === "erofs").map(({ mountpoint }) => mountpoint));
    for (const { dir, record } of await listRecords(mountsDir)) {
      const alive = record !== undefined && !record.served && trees.has(record.root);
      if (record !== undefined) {
        const { root, workspace, manifestDigest } = record;
        predecessors.#found.push({ root, workspace, manifestDigest, alive });
        if (alive) predecessors.#alive.set(root, { dir, record });
      }
      if (!alive) await clear(dir, record?.root ?? join(dir, "root"));
    }
    await detachLoops(`${mountsDir}/`);
    return predecessors;
  }

  /** Everything that was found, the dead (cleared by now) and the living. */
  list(): readonly StaleMount[] {
    return this.#found;
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
    if (found !== undefined) await clear(found.dir, root);
  }

  /** The roots of the living ones that nobody took yet. */
  remaining(): string[] {
    return [...this.#alive.keys()];
  }
}

async function clear(dir: string, root: string): Promise<void> {
  try {
    await unmountAll(root);
    await unmountAll(join(dir, "blobs"));
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
