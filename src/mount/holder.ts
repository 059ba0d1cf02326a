import { basename } from "node:path";
import { FuseBlobServer, type FuseMountOptions } from "../native/fuse.ts";
import { HolderConnection } from "../native/holder.ts";
import { waitForExit } from "../native/process.ts";
import { errnoOf } from "../std/error.ts";
import { logger } from "../std/log.ts";

export interface HolderSettings {
  /** For how long readers wait for the next process before they get an error. */
  readonly patienceMs: number;
  /** Called with the process of a holder that was started, for instance to move it out of this one's unit. */
  readonly onStarted?: ((pid: number) => Promise<void>) | undefined;
}

/**
 * The holder of a state directory's FUSE connections, as one process knows it. It is started for the first mount that
 * needs it. Where the kernel cannot resend, or the holder cannot be started, mounts work as well and die with this
 * process: that is logged, it is no error.
 */
export class MountHolder {
  readonly #folder: string;
  readonly #settings: HolderSettings;
  /** What this process left with the holder. */
  readonly #servers = new Map<string, FuseBlobServer>();
  /** What an earlier process did. */
  readonly #found = new Set<string>();
  #connection: HolderConnection | undefined;
  #connecting: Promise<HolderConnection> | undefined;
  #useless = false;

  private constructor(folder: string, settings: HolderSettings) {
    this.#folder = folder;
    this.#settings = settings;
  }

  /** Looks what an earlier process left. `folder` is the folder of mounts, locked by the caller. */
  static async open(folder: string, settings: HolderSettings): Promise<MountHolder> {
    const holder = new MountHolder(folder, settings);
    const { patienceMs } = settings;
    try {
      const connection = await HolderConnection.connect({ folder, patienceMs });
      holder.#connection = connection;
      for (const key of (await connection?.list()) ?? []) holder.#found.add(key);
      if (connection !== undefined) holder.#watch(connection);
    } catch (error) {
      logger("mount").error("the holder of an earlier process's mounts does not answer", { folder, error });
      holder.#connection = undefined;
    }
    return holder;
  }

  /** Whether an earlier process left the connection of the mount in `dir`, and nobody took it yet. */
  has(dir: string): boolean {
    return this.#found.has(basename(dir));
  }

  /** Leaves a mount's connection with the holder, which is started where there is none. Never throws. */
  async hold(dir: string, server: FuseBlobServer): Promise<void> {
    if (this.#useless || !server.resends) return;
    const key = basename(dir);
    try {
      this.#servers.set(key, server);
      await this.#put(key, server);
    } catch (error) {
      this.#servers.delete(key);
      this.#useless = true;
      logger("mount").warning("mounts will not survive the end of this process", { dir, error });
    }
  }

  /** Serves what {@link has}; `undefined` when it cannot be served any more. */
  async adopt(
    dir: string,
    options: FuseMountOptions & { readonly connectionMinor: number },
  ): Promise<FuseBlobServer | undefined> {
    const key = basename(dir);
    if (this.#connection === undefined || !this.#found.delete(key)) return undefined;
    const server = await FuseBlobServer.adopt({ ...options, holder: this.#connection, key });
    if (server !== undefined) this.#servers.set(key, server);
    return server;
  }

  /** The mount in `dir` is gone, or is to be. Never throws. */
  async drop(dir: string): Promise<void> {
    const key = basename(dir);
    if (!this.#servers.delete(key) && !this.#found.delete(key)) return;
    await this.#connection?.drop(key).catch((error: unknown) => {
      // One that has ended holds nothing.
      if (errnoOf(error) !== "ENOTCONN") logger("mount").warning("the holder keeps a mount", { dir, error });
    });
  }

  /** Drops what an earlier process left and nobody took. */
  async dropFound(): Promise<void> {
    for (const key of [...this.#found]) await this.drop(key);
  }

  /** No mount needs the holder any more: it ends. */
  async close(): Promise<void> {
    for (const key of [...this.#servers.keys()]) await this.drop(key);
    const connection = this.#connection;
    this.#connection = undefined;
    await connection?.bye().catch((error: unknown) => {
      logger("mount").warning("the holder did not end", { folder: this.#folder, error });
    });
  }

  async #put(key: string, server: FuseBlobServer): Promise<void> {
    const connection = await this.#connected();
    try {
      await server.hold(connection, key);
    } catch (thrown) {
      if (errnoOf(thrown) !== "ENOTCONN") throw thrown;
      await this.#follow(connection);
    }
  }

  /** A holder that is ended by somebody else (or by the kernel, for want of memory) is noticed at once. */
  #watch(connection: HolderConnection): void {
    const ended = waitForExit(connection.pid).then(() => this.#follow(connection));
    ended.catch((error: unknown) => {
      logger("mount").error("mounts will not survive the end of this process", { error });
    });
  }

  /** When this holder has ended, its successor gets everything that still is served. */
  async #follow(ended: HolderConnection): Promise<void> {
    if (this.#connection !== ended) return;
    this.#connection = undefined;
    if (this.#servers.size === 0) return;
    logger("mount").warning("the holder of mounts has ended; another takes its place", { pid: ended.pid });
    const connection = await this.#connected();
    for (const [key, server] of this.#servers) await server.hold(connection, key);
  }

  async #connected(): Promise<HolderConnection> {
    if (this.#connection !== undefined) return this.#connection;
    this.#connecting ??= this.#start().finally(() => {
      this.#connecting = undefined;
    });
    return await this.#connecting;
  }

  async #start(): Promise<HolderConnection> {
    const { patienceMs, onStarted } = this.#settings;
    const connection = await HolderConnection.start({ folder: this.#folder, patienceMs });
    this.#connection = connection;
    this.#watch(connection);
    await onStarted?.(connection.pid).catch((error: unknown) => {
      logger("mount").warning("the holder of mounts stays in this process's unit", {
        pid: connection.pid,
        error,
      });
    });
    return connection;
  }
}
