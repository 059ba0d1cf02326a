import { mkdir, mkdtemp, readdir, rename, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { isVolumeName } from "../../container/check-options.ts";
import { errnoOf } from "../../std/error.ts";
import { RuntimeError } from "../error.ts";
import { removeTree } from "./remove-tree.ts";

const namePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** A volume of a workspace. */
export interface VolumeName {
  readonly workspaceId: string;
  readonly name: string;
}

/**
 * The volumes of this worker: a directory each, which outlives the containers that use it and keeps owners as the image has
 * them, whatever range of ids a container has. Only one process has the directory of them all.
 */
export class Volumes {
  readonly #directory: string;
  readonly #uses = new Map<string, Set<string>>();
  /** The last of those that wait for a volume, each for the one before it. */
  readonly #last = new Map<string, Promise<unknown>>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * The directory of a volume, which the container uses until {@link release}. One that is empty and that nobody else uses is
   * filled first: `fill` makes the directory that it is given, with what is to be in it.
   * @throws RuntimeError `volume`
   */
  async use(
    volume: VolumeName,
    containerId: string,
    fill: (directory: string) => Promise<void>,
  ): Promise<string> {
    const path = this.#pathOf(volume);
    return await this.#inTurn(path, async () => {
      const users = this.#uses.get(path) ?? new Set();
      if (users.size === 0 && (await isEmpty(path))) await this.#make(path, fill);
      this.#uses.set(path, users.add(containerId));
      return path;
    });
  }

  /** Takes note of what a container uses that was there before. */
  keep(volumes: readonly VolumeName[], containerId: string): void {
    for (const volume of volumes) {
      const path = this.#pathOf(volume);
      this.#uses.set(path, (this.#uses.get(path) ?? new Set()).add(containerId));
    }
  }

  release(containerId: string): void {
    for (const [path, users] of this.#uses) {
      users.delete(containerId);
      if (users.size === 0) this.#uses.delete(path);
    }
  }

  /** Removes a volume and what is in it. One that is not there is fine. @throws RuntimeError `volume` while it is used */
  async remove(volume: VolumeName): Promise<void> {
    const path = this.#pathOf(volume);
    await this.#inTurn(path, async () => {
      const [user] = this.#uses.get(path) ?? [];
      if (user !== undefined) {
        throw new RuntimeError("volume", `container ${user} uses volume ${volume.name}`, {
          next: `Stop it first: oci-node stop ${user}`,
        });
      }
      // Out of its place at once: what takes long to remove is no volume any more.
      const gone = await mkdtemp(join(await this.#home(), ".gone-"));
      await rename(path, join(gone, "data")).catch(unlessMissing);
      await removeTree(gone);
      await rmdir(join(path, "..")).catch(() => undefined);
    });
  }

  /** Removes what a process that died had half made or half removed. */
  async clear(): Promise<void> {
    for (const name of await readdir(await this.#home()))
      if (name.startsWith(".")) await removeTree(join(this.#directory, name));
  }

  async #make(path: string, fill: (directory: string) => Promise<void>): Promise<void> {
    const beside = await mkdtemp(join(await this.#home(), ".new-"));
    try {
      await fill(join(beside, "data"));
      await mkdir(join(path, ".."), { recursive: true, mode: 0o700 });
      await rmdir(path).catch(unlessMissing);
      await rename(join(beside, "data"), path);
    } finally {
      await removeTree(beside);
    }
  }

  async #home(): Promise<string> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    return this.#directory;
  }

  #pathOf({ workspaceId, name }: VolumeName): string {
    for (const part of [workspaceId, name]) {
      if (!namePattern.test(part) || !isVolumeName(part))
        throw new RuntimeError("volume", `${JSON.stringify(part.slice(0, 200))} cannot name a volume`);
    }
    return join(this.#directory, workspaceId, name);
  }

  /** Does one thing after the other with a volume. */
  async #inTurn<T>(path: string, task: () => Promise<T>): Promise<T> {
    const before = this.#last.get(path) ?? Promise.resolve();
    const own = before.then(task, task);
    this.#last.set(path, own);
    try {
      return await own;
    } finally {
      if (this.#last.get(path) === own) this.#last.delete(path);
    }
  }
}

async function isEmpty(directory: string): Promise<boolean> {
  try {
    return (await readdir(directory)).length === 0;
  } catch (error) {
    unlessMissing(error);
    return true;
  }
}

function unlessMissing(error: unknown): void {
  if (errnoOf(error) !== "ENOENT") throw error;
}
