import { statfs } from "node:fs/promises";

const reserveShare = 0.05;
const reserveBytesMax = 4 * 1024 ** 3;

/** What the disk of a folder has. */
export interface DiskRoom {
  readonly freeBytes: number;
  /** What of that has to stay free: a full disk is trouble for whoever else writes to it. */
  readonly reserveBytes: number;
}

export async function diskRoom(dir: string): Promise<DiskRoom> {
  const { bavail, blocks, bsize } = await statfs(dir);
  return {
    freeBytes: bavail * bsize,
    reserveBytes: Math.floor(Math.min(blocks * bsize * reserveShare, reserveBytesMax)),
  };
}
