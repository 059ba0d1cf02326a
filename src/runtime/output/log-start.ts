import { type FileHandle, open } from "node:fs/promises";
import { errnoOf } from "../../std/error.ts";
import type { ContainerPaths } from "../layout.ts";

/** A line of the file holds at most one read of the monitor, 8 KiB: each block has the end of one. */
const blockBytes = 64 * 1024;
const newline = 0x0a;
const space = 0x20;
/** `TIME stdout F `: the tag is behind the second space. */
const whole = 0x46;

/** Which part of a log is wanted. */
export interface LogPart {
  /** What was written earlier is left out. */
  readonly since?: Date;
  /** The last so many lines of what there is now. */
  readonly tail?: number;
}

/** Where to begin in the files of a log, by inode: in one that is not named, at its beginning. */
export type LogStart = ReadonlyMap<number, number>;

/** Finds a part's beginning by looking at the ends and the middles of a log's files, not at all of them. */
export async function findStart(paths: ContainerPaths, { since, tail }: LogPart): Promise<LogStart> {
  const start = new Map<number, number>();
  let missing = tail;
  for (const path of [paths.log, paths.previousLog]) {
    const file = await openThere(path);
    if (file === undefined) continue;
    try {
      const { ino, size } = await file.stat();
      let position = 0;
      if (since !== undefined) position = await firstAt(file, size, since);
      if (missing !== undefined) {
        const found = await lastLines(file, size, missing, path === paths.log);
        position = Math.max(position, found.position);
        missing -= found.lines;
      }
      // A rotation in between gives the one file both names.
      if (!start.has(ino)) start.set(ino, position);
    } finally {
      await file.close();
    }
  }
  return start;
}

async function openThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length);
  const { bytesRead } = await file.read(buffer, 0, length, position);
  return buffer.subarray(0, bytesRead);
}

/** The beginning of a line not far before the first one of that time: lines are in the order of time. */
async function firstAt(file: FileHandle, size: number, since: Date): Promise<number> {
  let [low, high] = [0, size];
  while (high - low > blockBytes) {
    const middle = Math.floor((low + high) / 2);
    const block = await readAt(file, middle, blockBytes);
    const line = block.indexOf(newline) + 1;
    const time = Date.parse(block.toString("latin1", line, Math.max(line, block.indexOf(space, line))));
    if (line > 0 && time < since.getTime()) low = middle + line;
    else high = middle;
  }
  return low;
}

/** Where the last lines of output begin, and how many there are. @param isLast a line may be going on at its end */
async function lastLines(
  file: FileHandle,
  size: number,
  wanted: number,
  isLast: boolean,
): Promise<{ readonly position: number; readonly lines: number }> {
  if (wanted <= 0) return { position: size, lines: 0 };
  let lines = 0;
  let newest = isLast;
  for (let end = size; end > 0; ) {
    const begin = Math.max(0, end - blockBytes);
    const block = await readAt(file, begin, end - begin);
    const first = begin === 0 ? 0 : block.indexOf(newline) + 1;
    for (let after = block.length; after > first; ) {
      const at = block.lastIndexOf(newline, after - 2) + 1;
      const ends = isWhole(block, Math.max(at, first));
      if (ends && lines === wanted) return { position: begin + after, lines };
      // A line that has no end yet counts too.
      if (ends || newest) lines += 1;
      newest = false;
      after = Math.max(at, first);
    }
    if (first === 0 && begin > 0) return { position: end, lines };
    end = begin + first;
  }
  return { position: 0, lines };
}

function isWhole(block: Buffer, at: number): boolean {
  return block[block.indexOf(space, block.indexOf(space, at) + 1) + 1] === whole;
}
