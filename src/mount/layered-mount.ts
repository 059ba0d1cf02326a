import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { FuseBlobServer } from "../native/fuse.ts";
import { umount } from "../native/linux.ts";
import { errnoOf } from "../std/error.ts";
import { run } from "../std/spawn.ts";
import { toMountError } from "./errno.ts";
import { MountError } from "./error.ts";
import type { MountHolder } from "./holder.ts";
import type { CachedLayer } from "./layer-cache.ts";
import type { Transport, TransportName } from "./transport.ts";

export interface LayeredMountOptions {
  /** The mount's own folder; the FUSE mount is in there. */
  readonly dir: string;
  /** Keeps the FUSE mount's connection for a later process. */
  readonly holder: MountHolder | undefined;
  /** Where the EROFS tree appears. */
  readonly root: string;
  /** The EROFS metadata image. */
  readonly erofsPath: string;
  /** In the order of the image's devices. */
  readonly layers: readonly CachedLayer[];
  /** Those of them that FUSE must serve. */
  readonly partial: readonly CachedLayer[];
  readonly transport: Transport;
  /** Ignore setuid bits, and device nodes too. */
  readonly restrict: boolean;
  readonly readDeadlineMs: number;
  readonly signal: AbortSignal;
}

/** Of a mount that an earlier process made, and that its holder has. */
export interface AdoptedMountOptions
  extends Pick<LayeredMountOptions, "dir" | "root" | "partial" | "readDeadlineMs"> {
  readonly holder: MountHolder;
  readonly connectionMinor: number;
  readonly transport: TransportName;
}

const stuckMs = 500;
const busyTries = 20;
const busyWaitMs = 50;

/**
 * One EROFS mount and what it stands on: layers that are complete are files of the cache; the others are files of a FUSE
 * mount. When all are complete there is no FUSE mount, and the tree outlives this process.
 */
export class LayeredMount {
  readonly root: string;
  /** How EROFS reads its files. */
  readonly transport: TransportName;
  /** Milliseconds that the steps took. */
  readonly fuseMs: number;
  readonly erofsMs: number;
  readonly #fuse: FuseLayer | undefined;

  private constructor(
    root: string,
    fuse: FuseLayer | undefined,
    transport: TransportName,
    fuseMs: number,
    erofsMs: number,
  ) {
    this.root = root;
    this.#fuse = fuse;
    this.transport = transport;
    this.fuseMs = fuseMs;
    this.erofsMs = erofsMs;
  }

  /** Mounts, or leaves nothing mounted. */
  static async create(options: LayeredMountOptions): Promise<LayeredMount> {
    const { root, dir, layers, partial, holder, signal } = options;
    const blobs = blobsDir(dir);
    const started = performance.now();
    let fuse: FuseLayer | undefined;
    let mounted: LayeredMount | undefined;
    let holding: Promise<void> | undefined;
    try {
      await mkdir(root, { recursive: true, mode: 0o755 });
      if (partial.length > 0) fuse = await FuseLayer.create(dir, partial, options.readDeadlineMs, holder);
      const fused = performance.now();
      signal.throwIfAborted();
      const devices = layers.map((layer) => {
        const file = partial.indexOf(layer);
        return file < 0 ? layer.path : join(blobs, String(file));
      });
      holding = fuse?.leaveWithHolder();
      const transport = await options.transport.mount(options.erofsPath, devices, root);
      await holding;
      const mount = new LayeredMount(root, fuse, transport, fused - started, performance.now() - fused);
      mounted = mount;
      if (options.restrict)
        await run(["mount", "-o", "remount,bind,ro,nosuid,nodev", root], { timeoutMs: 10_000 });
      signal.throwIfAborted();
      return mount;
    } catch (thrown) {
      await mounted?.unmountTree();
      await holding;
      await fuse?.takeDown();
      throw toMountError(thrown, `mounting ${root}`);
    }
  }

  /** Serves a mount that is there; `undefined` when its connection is over. Mounts nothing, and unmounts nothing. */
  static async adopt(options: AdoptedMountOptions): Promise<LayeredMount | undefined> {
    const fuse = await FuseLayer.adopt(options);
    return fuse && new LayeredMount(options.root, fuse, options.transport, 0, 0);
  }

  /** The FUSE session's own counters, if there is a session. */
  get server(): FuseBlobServer | undefined {
    return this.#fuse?.server;
  }

  /**
   * Unmounts the tree. Reads that the kernel still waits for are answered with EIO: nobody is there for them any more.
   * @throws MountError `busy` when something still uses it after a second; the mount then stays as it was
   */
  unmountTree(): Promise<void> {
    return unmountTree(this.root, () => this.#fuse?.server.drain());
  }

  /** Takes the tree out of sight; who still uses it gets EIO once {@link dismantle} has run. */
  async detachTree(): Promise<void> {
    await umount(this.root, { detach: true });
  }

  /** Unmounts what the tree stood on. The tree must be gone, or detached. */
  async dismantle(): Promise<void> {
    await this.#fuse?.takeDown();
  }
}

/** Folder of the FUSE mount: the blobs of the layers that are not complete, as files `0`, `1`, …. */
export function blobsDir(dir: string): string {
  return join(dir, "blobs");
}

/** The FUSE mount that serves the blobs of layers that are not complete. */
class FuseLayer {
  readonly server: FuseBlobServer;
  readonly #dir: string;
  readonly #holder: MountHolder | undefined;

  private constructor(server: FuseBlobServer, dir: string, holder: MountHolder | undefined) {
    this.server = server;
    this.#dir = dir;
    this.#holder = holder;
  }

  static async create(
    dir: string,
    partial: readonly CachedLayer[],
    readDeadlineMs: number,
    holder: MountHolder | undefined,
  ): Promise<FuseLayer> {
    const mountpoint = blobsDir(dir);
    await mkdir(mountpoint, { recursive: true, mode: 0o700 });
    const blobs = partial.map(({ blob }) => blob);
    return new FuseLayer(FuseBlobServer.mount({ mountpoint, blobs, readDeadlineMs }), dir, holder);
  }

  static async adopt(options: AdoptedMountOptions): Promise<FuseLayer | undefined> {
    const { dir, partial, holder, readDeadlineMs, connectionMinor } = options;
    const blobs = partial.map(({ blob }) => blob);
    const mountpoint = blobsDir(dir);
    const server = await holder.adopt(dir, { mountpoint, blobs, readDeadlineMs, connectionMinor });
    return server && new FuseLayer(server, dir, holder);
  }

  async leaveWithHolder(): Promise<void> {
    await this.#holder?.hold(this.#dir, this.server);
  }

  async takeDown(): Promise<void> {
    await this.#takeDown();
    await this.#holder?.drop(this.#dir);
  }

  async #takeDown(): Promise<void> {
    for (let attempt = 1; attempt < busyTries; attempt += 1) {
      try {
        return await this.server.unmount();
      } catch (thrown) {
        if (errnoOf(thrown) !== "EBUSY") throw toMountError(thrown, `unmounting ${blobsDir(this.#dir)}`);
      }
      // Loop devices let go of their files a moment after the tree is gone; a tree that was detached never does.
      await wait(busyWaitMs);
    }
    await this.server.abort();
    await umount(blobsDir(this.#dir), { detach: true });
    await this.server.unmount();
  }
}

/**
 * Unmounts an EROFS tree, waiting about a second for those who only look at it. What is not mounted is no error.
 * @param stuck called when one attempt takes long: the tree is gone but the kernel waits for its running reads
 * @throws MountError `busy`
 */
export async function unmountTree(root: string, stuck: () => void): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const timer = setTimeout(stuck, stuckMs);
    try {
      return await umount(root);
    } catch (thrown) {
      const errno = errnoOf(thrown);
      if (errno === "EINVAL" || errno === "ENOENT") return;
      if (errno !== "EBUSY") throw toMountError(thrown, `unmounting ${root}`);
      if (attempt === busyTries) throw stillInUse(root, thrown);
    } finally {
      clearTimeout(timer);
    }
    await wait(busyWaitMs);
  }
}

function stillInUse(root: string, cause: unknown): MountError {
  return new MountError("busy", `${root} is still in use`, {
    cause,
    next: `End what uses it (\`fuser -vm ${root}\` shows it), then try again.`,
  });
}
