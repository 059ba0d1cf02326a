import { type FileHandle, open } from "node:fs/promises";
import { writeError } from "./error.ts";

const bufferBytes = 1024 * 1024;

/**
 * A file written once, from its start to its end, through one buffer, and hashed on the way.
 *
 * {@link FileOutput.reserve} gives room that is zero; what is skipped stays zero. Room is used in the turn that got it.
 */
export class FileOutput {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #hasher = new Bun.CryptoHasher("sha256");
  #buffer = Buffer.alloc(bufferBytes);
  /** Where the buffer begins in the file, and how much of it is used. */
  #start = 0;
  #used = 0;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  /** Makes the file, or empties it. */
  static async create(path: string): Promise<FileOutput> {
    return new FileOutput(path, await open(path, "w", 0o644));
  }

  get buffer(): Buffer {
    return this.#buffer;
  }

  /**
   * Room for `length` bytes at `offset` of the file, not before what was reserved earlier. Returns their place in
   * {@link FileOutput.buffer}, which must be asked for again after each call; `undefined` when a flush has to come first.
   */
  reserve(offset: number, length: number): number | undefined {
    const at = offset - this.#start;
    if (at + length > this.#buffer.length) return undefined;
    this.#used = Math.max(this.#used, at + length);
    return at;
  }

  /** Writes what is in the buffer and reserves `length` bytes at `offset` of the file, where the buffer then begins. */
  async flush(offset: number, length: number): Promise<number> {
    await this.#write(this.#buffer.subarray(0, this.#used));
    this.#start += this.#used;
    if (length > this.#buffer.length) this.#buffer = Buffer.alloc(length);
    else this.#buffer.fill(0, 0, this.#used);
    this.#used = 0;
    while (this.#start < offset) {
      const gap = this.#buffer.subarray(0, Math.min(offset - this.#start, this.#buffer.length));
      await this.#write(gap);
      this.#start += gap.length;
    }
    this.#used = length;
    return 0;
  }

  /** Writes the rest, up to `sizeBytes` in all, syncs the file, and closes it. */
  async finish(sizeBytes: number): Promise<string> {
    await this.flush(sizeBytes, 0);
    await this.#file.sync();
    await this.close();
    return this.#hasher.digest("hex");
  }

  /** Closes the file as it is; may be called again. */
  async close(): Promise<void> {
    await this.#file.close();
  }

  async #write(bytes: Uint8Array): Promise<void> {
    this.#hasher.update(bytes);
    try {
      for (let done = 0; done < bytes.length; ) {
        done += (await this.#file.write(bytes, done, bytes.length - done)).bytesWritten;
      }
    } catch (error) {
      throw writeError(this.#path, error);
    }
  }
}
