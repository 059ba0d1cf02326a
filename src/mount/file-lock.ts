import { type FileHandle, open, stat } from "node:fs/promises";
import { setTimeout as wait } from "node:timers/promises";
import { flock } from "../native/process.ts";
import { errnoOf } from "../std/error.ts";
import { MountError } from "./error.ts";

/** Held by somebody else; removed by somebody else. */
const expected: ReadonlySet<string> = new Set(["EAGAIN", "EWOULDBLOCK", "ENOENT"]);

/** A lock on a file by `flock(2)`, which the kernel gives back when the process dies. */
export class FileLock {
  readonly #file: FileHandle;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  /** Takes the lock together with other sharers. Who evicts holds it for moments only, so that is waited for. */
  static async share(path: string): Promise<FileLock> {
    for (let attempt = 0; attempt < 200; attempt += 1) {
      const lock = await FileLock.#try(path, "shared");
      if (lock !== undefined) return lock;
      await wait(10);
    }
    throw new MountError("busy", `${path} stays locked by another process`);
  }

  /** Takes the lock alone; `undefined` when anybody holds it. */
  static takeAlone(path: string): Promise<FileLock | undefined> {
    return FileLock.#try(path, "exclusive");
  }

  release(): Promise<void> {
    return this.#file.close();
  }

  static async #try(path: string, kind: "shared" | "exclusive"): Promise<FileLock | undefined> {
    const file = await open(path, "a", 0o600);
    try {
      flock(file.fd, kind);
      // Who evicts removes the file: a lock on a file that is no longer at its path protects nothing.
      if ((await file.stat()).ino === (await stat(path)).ino) return new FileLock(file);
    } catch (thrown) {
      if (!expected.has(errnoOf(thrown) ?? "")) {
        await file.close();
        throw thrown;
      }
    }
    await file.close();
    return undefined;
  }
}
