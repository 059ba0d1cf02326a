import type { MountError } from "./error.ts";
import type { FileLock } from "./file-lock.ts";
import { unmountTree } from "./layered-mount.ts";
import { type MountRecord, removeMountDir } from "./mount-record.ts";
import type { MountedImage, MountStats } from "./mounted-image.ts";

/** A mount of complete layers that an earlier process made: it is read without us, and unmounted by us. */
export class AdoptedMount implements MountedImage {
  readonly root: string;
  readonly workspace: string;
  readonly manifestDigest: string;
  readonly transport = "adopted";
  readonly servedByProcess = false;
  /** Nothing is fetched, so nothing fails. */
  readonly failure = new Promise<MountError>(() => undefined);
  readonly #dir: string;
  readonly #record: MountRecord;
  readonly #locks: readonly FileLock[];

  /** @param locks on the cache files that the tree reads */
  constructor(dir: string, record: MountRecord, locks: readonly FileLock[]) {
    this.root = record.root;
    this.workspace = record.workspace;
    this.manifestDigest = record.manifestDigest;
    this.#dir = dir;
    this.#record = record;
    this.#locks = locks;
  }

  stats(): MountStats {
    const { spansTotal, compressedBytes } = this.#record;
    return {
      fetchedBytes: 0,
      requests: 0,
      spansPresent: spansTotal,
      spansTotal,
      compressedBytes,
      complete: true,
    };
  }

  replaceSource(): void {}

  leadSource(): void {}

  withdrawSource(): void {}

  async complete(): Promise<void> {}

  prefetch(): void {}

  readSoFar(): undefined {}

  endNotes(): void {}

  startBackground(): void {}

  async close(): Promise<void> {
    await unmountTree(this.root, () => undefined);
    for (const lock of this.#locks) await lock.release();
    await removeMountDir(this.#dir, this.root);
  }

  async detach(): Promise<void> {}
}
