import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { errnoOf } from "../../std/error.ts";
import type { ContainerPaths } from "../layout.ts";
import type { LogChunk } from "../spec.ts";
import type { DirectoryWatch } from "./directory-watch.ts";
import { LogParser } from "./log-format.ts";
import { findStart, type LogPart, type LogStart } from "./log-start.ts";

const readSizeBytes = 64 * 1024;

export interface FollowOptions {
  readonly watch: DirectoryWatch;
  /** Resolves when nothing will be written any more; absent: do not wait for more than is there. */
  readonly ended?: Promise<unknown>;
  readonly signal?: AbortSignal;
  /** Absent: all that is kept. */
  readonly part?: LogPart;
}

type Chunks = AsyncGenerator<LogChunk, void, undefined>;

/**
 * A container's output from the oldest byte that is kept. Following goes on over rotations (a new file takes the log's
 * name), and ends after the last byte of a container that has ended, or quietly when the signal fires. A writer that
 * rotates twice before a reader looks makes the reader skip what was between.
 */
export async function* readLog(paths: ContainerPaths, options: FollowOptions): Chunks {
  const { part } = options;
  const start = part === undefined ? new Map<number, number>() : await findStart(paths, part);
  const since = part?.since;
  for await (const chunk of readFrom(paths, options, start)) {
    if (since === undefined || chunk.time >= since) yield chunk;
  }
}

async function* readFrom(paths: ContainerPaths, options: FollowOptions, start: LogStart): Chunks {
  const waiter = new Waiter(basename(paths.log), options);
  let before: Generation | undefined;
  let present: Generation | undefined;
  try {
    for (;;) {
      // Asked before reading: what was written before the end is then read for certain.
      const last = waiter.ended;
      if (present !== undefined) yield* present.chunks(waiter);
      if (waiter.aborted) return;
      const successors = await findSuccessors(paths, start, present, before);
      if (successors.length === 0) {
        if (last) return;
        await waiter.changed();
      }
      for (const successor of successors) {
        // Its last bytes may have come between the reading and the rotation.
        if (present !== undefined) yield* present.chunks(waiter);
        await before?.file.close();
        before = present;
        present = successor;
      }
    }
  } finally {
    waiter.close();
    await before?.file.close();
    await present?.file.close();
  }
}

/** One file that is or was the log; it is read on from where the last reading ended. */
class Generation {
  readonly file: FileHandle;
  /** Not given to another file as long as this one is open. */
  readonly inode: number;
  readonly #parser = new LogParser();
  #position: number;

  private constructor(file: FileHandle, inode: number, position: number) {
    this.file = file;
    this.inode = inode;
    this.#position = position;
  }

  static async open(path: string, start: LogStart): Promise<Generation | undefined> {
    try {
      const file = await open(path, "r");
      const { ino } = await file.stat();
      return new Generation(file, ino, start.get(ino) ?? 0);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** To the end of the file as it is now. */
  async *chunks(waiter: Waiter): Chunks {
    while (!waiter.aborted) {
      const buffer = Buffer.allocUnsafe(readSizeBytes);
      const { bytesRead } = await this.file.read(buffer, 0, readSizeBytes, this.#position);
      if (bytesRead === 0) return;
      this.#position += bytesRead;
      for (const chunk of this.#parser.push(buffer.subarray(0, bytesRead))) {
        if (waiter.aborted) return;
        yield chunk;
      }
    }
  }
}

/** The files that came after the present one, oldest first; none while it still is the log. */
async function findSuccessors(
  paths: ContainerPaths,
  start: LogStart,
  present: Generation | undefined,
  before: Generation | undefined,
): Promise<Generation[]> {
  const log = await Generation.open(paths.log, start);
  if (log === undefined) return [];
  if (log.inode === present?.inode) {
    await log.file.close();
    return [];
  }
  const previous = await Generation.open(paths.previousLog, start);
  if (previous === undefined) return [log];
  if (![log.inode, present?.inode, before?.inode].includes(previous.inode)) return [previous, log];
  await previous.file.close();
  return [log];
}

/** Waits for a change of the log, the container's end, or the signal. */
class Waiter {
  ended: boolean;
  #changed = false;
  #wake: () => void = () => undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #unlisten: (() => void) | undefined;

  constructor(file: string, options: FollowOptions) {
    this.ended = options.ended === undefined;
    this.#signal = options.signal;
    this.#signal?.addEventListener("abort", this.#notice, { once: true });
    if (options.ended === undefined) return;
    this.#unlisten = options.watch.listen(file, this.#notice);
    options.ended.then(this.#end, this.#end);
  }

  get aborted(): boolean {
    return this.#signal?.aborted ?? false;
  }

  /** Resolves at the next change, or at once if there was one since the last call. */
  async changed(): Promise<void> {
    if (!this.#changed && !this.aborted) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#changed = false;
  }

  close(): void {
    this.#unlisten?.();
    this.#signal?.removeEventListener("abort", this.#notice);
  }

  readonly #end = (): void => {
    this.ended = true;
    this.#notice();
  };

  readonly #notice = (): void => {
    this.#changed = true;
    this.#wake();
  };
}
