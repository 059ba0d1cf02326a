/** The FUSE mount that gives EROFS its devices: a flat read-only folder with one file per layer blob. */
import type { LayerBlob } from "./blob.ts";
import { checked, errnoName, holdProcess, runJob, startDoorbell } from "./doorbell.ts";
import type { HolderConnection } from "./holder.ts";
import { fuseAbort } from "./linux.ts";
import { cText, loadShim } from "./shim.ts";

const { symbols } = loadShim({
  oci_fuse_mount: { args: ["buffer", "buffer", "u32", "u32", "u32", "buffer"], returns: "i32" },
  oci_fuse_unmount: { args: ["u32", "u32"], returns: "i32" },
  oci_fuse_stats: { args: ["u32", "buffer"], returns: "i32" },
  oci_fuse_drain: { args: ["u32", "bool"], returns: "i32" },
  oci_fuse_forget: { args: ["u32"], returns: "void" },
  oci_fuse_resends: { args: ["u32"], returns: "i32" },
  oci_fuse_hold: { args: ["u32", "u32", "buffer", "u32"], returns: "i32" },
  oci_fuse_adopt: {
    args: ["u32", "buffer", "buffer", "buffer", "u32", "u32", "u32", "u32", "u32"],
    returns: "i32",
  },
});

export interface FuseMountOptions {
  /** An existing empty folder. */
  readonly mountpoint: string;
  /** Served as files "0", "1", … in this order. */
  readonly blobs: readonly LayerBlob[];
  /** Threads that answer requests; default 2. A miss holds none of them. */
  readonly threads?: number;
  /**
   * After this time a waiting read gets EIO, whatever happens in JavaScript; default 31,000. As much again for each full
   * 8 MiB (compressed) of the largest span that it needs, and for each 8 MiB that arrive of its layer.
   */
  readonly readDeadlineMs?: number;
}

export interface FuseStats {
  readonly reads: number;
  readonly hits: number;
  readonly misses: number;
  readonly bytesServed: number;
  /** Reads that wait at this moment. */
  readonly waiting: number;
}

const noStats: FuseStats = { reads: 0, hits: 0, misses: 0, bytesServed: 0, waiting: 0 };

export class FuseBlobServer {
  readonly mountpoint: string;
  /** The number under /sys/fs/fuse/connections, and the minor of the mount's device. */
  readonly connectionMinor: number;
  readonly #id: number;
  /** Misses find their blob by number as long as the mount lives, so the blobs must live too. */
  readonly #blobs: readonly LayerBlob[];
  readonly #letGo: () => void;
  #unmounting: Promise<void> | undefined;
  #lastStats = noStats;
  #over = false;

  private constructor(id: number, minor: number, options: FuseMountOptions) {
    this.#id = id;
    this.#blobs = options.blobs;
    this.#letGo = holdProcess();
    this.mountpoint = options.mountpoint;
    this.connectionMinor = minor;
  }

  /**
   * Mounts and begins to serve. The process stays alive until `unmount` is done. The blobs must not be released before.
   * Read-ahead of the mount is set to 128 KiB here, whatever the host's default: an EROFS mounted on it asks for so much.
   */
  static mount(options: FuseMountOptions): FuseBlobServer {
    startDoorbell();
    const ids = Uint32Array.from(options.blobs, (blob) => blob.id);
    const minor = new Uint32Array(1);
    const id = symbols.oci_fuse_mount(
      cText(options.mountpoint),
      ids.length === 0 ? new Uint32Array(1) : ids,
      options.blobs.length,
      options.threads ?? 2,
      options.readDeadlineMs ?? 31_000,
      minor,
    );
    checked(id, `FUSE could not be mounted on ${options.mountpoint}`, "See `oci-node doctor`.");
    return new FuseBlobServer(id, minor[0]!, options);
  }

  /**
   * Serves a mount that an earlier process left with the holder: whatever waits there is answered. The blobs are those
   * of the same layers in the same order. `connectionMinor`: of the mount's device, as the kernel lists it.
   * `undefined`: nothing is held under the key, or the connection was cut.
   */
  static async adopt(
    options: FuseMountOptions & {
      readonly holder: HolderConnection;
      readonly key: string;
      readonly connectionMinor: number;
    },
  ): Promise<FuseBlobServer | undefined> {
    const { holder, key, mountpoint, connectionMinor, blobs, threads, readDeadlineMs } = options;
    const ids = Uint32Array.from([...blobs.map((blob) => blob.id), 0]);
    const id = await runJob((job) =>
      symbols.oci_fuse_adopt(
        holder.id,
        cText(key),
        cText(mountpoint),
        ids,
        blobs.length,
        threads ?? 2,
        readDeadlineMs ?? 31_000,
        connectionMinor,
        job,
      ),
    );
    if (id < 0 && ["ENOENT", "ENOTCONN"].includes(errnoName(id))) return undefined;
    checked(id, `the FUSE mount on ${mountpoint} could not be taken over`);
    return new FuseBlobServer(id, connectionMinor, options);
  }

  /** Whether this kernel can ask a later process again what this one leaves unanswered (Linux ≥ 6.9). */
  get resends(): boolean {
    return !this.#over && checked(symbols.oci_fuse_resends(this.#id), "FUSE session") === 1;
  }

  /**
   * Leaves the connection with the holder, so that its readers wait for the next process when this one ends. Throws
   * `EOPNOTSUPP` where {@link resends} is false, `ENOTCONN` when the holder has ended.
   */
  async hold(holder: HolderConnection, key: string): Promise<void> {
    const result = await runJob((job) => symbols.oci_fuse_hold(this.#id, holder.id, cText(key), job));
    checked(result, `the FUSE mount on ${this.mountpoint} could not be left with the holder`);
  }

  get blobs(): readonly LayerBlob[] {
    return this.#blobs;
  }

  /** The path of a blob's file, to be given to EROFS as a device. */
  devicePath(index: number): string {
    return `${this.mountpoint}/${index}`;
  }

  stats(): FuseStats {
    if (this.#over) return this.#lastStats;
    const out = new BigUint64Array(5);
    checked(symbols.oci_fuse_stats(this.#id, out), "FUSE statistics");
    return {
      reads: Number(out[0]),
      hits: Number(out[1]),
      misses: Number(out[2]),
      bytesServed: Number(out[3]),
      waiting: Number(out[4]),
    };
  }

  /**
   * On: whatever waits gets EIO now, and so does every later miss; present spans are still served. To be called before
   * an EROFS on this mount is unmounted, which otherwise hangs in the kernel for as long as a read is in flight.
   */
  drain(on = true): void {
    if (!this.#over) checked(symbols.oci_fuse_drain(this.#id, on), "FUSE drain");
  }

  /** Cuts the connection: every read, waiting or to come, fails. The mount stays until `unmount`. */
  async abort(): Promise<void> {
    if (this.#over) return;
    this.drain();
    await fuseAbort(this.connectionMinor);
  }

  /**
   * Unmounts; resolves when the mount and its threads are gone. `EBUSY` while an EROFS (or an open file) is on it: the
   * mount then goes on serving, and `unmount` may be called again. Idempotent.
   */
  unmount(): Promise<void> {
    if (this.#unmounting === undefined) {
      const attempt = this.#unmount();
      this.#unmounting = attempt;
      attempt.catch(() => {
        this.#unmounting = undefined;
      });
    }
    return this.#unmounting;
  }

  async #unmount(): Promise<void> {
    const result = await runJob((job) => symbols.oci_fuse_unmount(this.#id, job));
    checked(result, `${this.mountpoint} could not be unmounted`);
    this.#lastStats = { ...this.stats(), waiting: 0 };
    this.#over = true;
    symbols.oci_fuse_forget(this.#id);
    this.#letGo();
  }
}
