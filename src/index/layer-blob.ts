import { closeSync, ftruncateSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { errnoOf, messageOf } from "../std/error.ts";
import type { ExtentSink } from "./layer-entries.ts";
import { blockBytes } from "./types.ts";

/** Where a layer's blob goes, how many bytes it may take on the disk, and how many must stay free there. */
export interface BlobPlace {
  readonly path: string;
  readonly sizeBytesMax: number;
  readonly freeBytesMin: number;
}

const bufferBytes = 1024 * 1024;
const zeros = Buffer.alloc(bufferBytes);
/** Between two looks at what is free: others write to the disk, too, other layers of the image above all. */
const lookBytes = 64 * 1024 * 1024;

/**
 * Writes a layer's aligned blob (`types.ts`) while the layer is indexed: each file's bytes go to their place, neighbours
 * together in writes of a megabyte, and what nothing is written to stays a hole.
 *
 * A blob is worth having, but no reason to fail: when the disk is full, or the blob outgrows its limit, the file is
 * removed, {@link LayerBlobWriter.problem} says why, and everything after that does nothing.
 */
export class LayerBlobWriter implements ExtentSink {
  readonly #place: BlobPlace;
  #fd: number;
  readonly #buffer = Buffer.allocUnsafeSlow(bufferBytes);
  /** The buffer holds the blob's bytes from `start`, `filled` of them. */
  #start = 0;
  #filled = 0;
  /** Whole blocks written. */
  #written = 0;
  #lookAt = 0;
  /** Extents in the tar's order, each a tar offset, a blob offset and a length; those before `next` are written. */
  #extents: number[] = [];
  #next = 0;
  #problem: string | undefined;

  private constructor(place: BlobPlace, fd: number) {
    this.#place = place;
    this.#fd = fd;
  }

  /** Makes the file, or empties it. It never throws: a place that cannot be written to is a {@link problem}. */
  static create(place: BlobPlace): LayerBlobWriter {
    const writer = new LayerBlobWriter(place, -1);
    try {
      writer.#fd = openSync(place.path, "w", 0o600);
    } catch (error) {
      writer.#giveUp(describe(error));
    }
    return writer;
  }

  /** Why there is no blob. */
  get problem(): string | undefined {
    return this.#problem;
  }

  addExtent(tarOffset: number, blobOffset: number, length: number): void {
    if (this.#fd >= 0) this.#extents.push(tarOffset, blobOffset, length);
  }

  /** Takes tar bytes, in order, after the extents that begin in them. */
  write(tarOffset: number, bytes: Uint8Array): void {
    if (this.#fd < 0) return;
    const tarEnd = tarOffset + bytes.length;
    const extents = this.#extents;
    let at = this.#next;
    for (; at < extents.length; at += 3) {
      const [start, blobOffset, length] = [extents[at] ?? 0, extents[at + 1] ?? 0, extents[at + 2] ?? 0];
      if (start >= tarEnd) break;
      const from = Math.max(start, tarOffset);
      const to = Math.min(start + length, tarEnd);
      if (to > from) {
        this.#put(blobOffset + from - start, bytes.subarray(from - tarOffset, to - tarOffset));
      }
      if (start + length > tarEnd) break;
    }
    const mostlyDone = at > 3000 && at * 2 > extents.length;
    if (mostlyDone) this.#extents = extents.slice(at);
    this.#next = mostlyDone ? 0 : at;
  }

  /** Writes what is left and gives the file the blob's size. Returns whether the blob is whole. */
  finish(blobBytes: number): boolean {
    if (this.#fd < 0) return false;
    try {
      this.#flush();
      if (this.#fd >= 0) ftruncateSync(this.#fd, blobBytes);
    } catch (error) {
      this.#giveUp(describe(error));
    }
    const whole = this.#fd >= 0;
    this.#close();
    return whole;
  }

  /** Removes the file of a blob that was not finished. */
  close(): void {
    if (this.#fd >= 0) this.#giveUp("the layer was not indexed");
  }

  #put(blobOffset: number, bytes: Uint8Array): void {
    const gap = blobOffset - (this.#start + this.#filled);
    if (gap >= blockBytes || this.#filled + gap > bufferBytes) {
      this.#flush();
      this.#start = blobOffset;
    } else if (gap > 0) {
      this.#buffer.fill(0, this.#filled, this.#filled + gap);
      this.#filled += gap;
    }
    for (let done = 0; done < bytes.length && this.#fd >= 0; ) {
      const taken = Math.min(bufferBytes - this.#filled, bytes.length - done);
      this.#buffer.set(bytes.subarray(done, done + taken), this.#filled);
      this.#filled += taken;
      done += taken;
      if (this.#filled === bufferBytes) this.#flush();
    }
  }

  /** Writes the buffer out, and begins after it. A buffer of zeros is left out: its place reads as zeros anyway. */
  #flush(): void {
    const pending = this.#buffer.subarray(0, this.#filled);
    const isZero = pending.equals(zeros.subarray(0, this.#filled));
    if (!isZero && this.#fd >= 0) {
      try {
        this.#checkRoom();
        for (let done = 0; done < pending.length && this.#fd >= 0; )
          done += writeSync(this.#fd, pending, done, pending.length - done, this.#start + done);
      } catch (error) {
        this.#giveUp(describe(error));
      }
    }
    this.#start += this.#filled;
    this.#filled = 0;
  }

  /** Before the buffer is written. */
  #checkRoom(): void {
    const { path, sizeBytesMax, freeBytesMin } = this.#place;
    const blocks =
      Math.ceil((this.#start + this.#filled) / blockBytes) - Math.floor(this.#start / blockBytes);
    this.#written += blocks * blockBytes;
    if (this.#written > sizeBytesMax) {
      this.#giveUp(`it takes more than the ${sizeBytesMax} bytes that there is room for`);
    } else if (this.#written >= this.#lookAt) {
      this.#lookAt = this.#written + lookBytes;
      const { bavail, bsize } = statfsSync(path);
      if (bavail * bsize < freeBytesMin)
        this.#giveUp(`less than ${freeBytesMin} bytes would stay free on the disk`);
    }
  }

  #giveUp(why: string): void {
    this.#problem ??= why;
    this.#extents = [];
    this.#close();
    rmSync(this.#place.path, { force: true });
  }

  #close(): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}

function describe(error: unknown): string {
  return errnoOf(error) === "ENOSPC" ? "no space is left on the disk" : messageOf(error);
}
