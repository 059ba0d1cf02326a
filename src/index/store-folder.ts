import { rename, rm, stat } from "node:fs/promises";
import { errnoOf } from "../std/error.ts";
import { besideName } from "./store-file.ts";

/** Takes a folder out of sight in one step, then removes it. */
export async function removeFolder(path: string): Promise<void> {
  const beside = besideName(path);
  try {
    await rename(path, beside);
  } catch (error) {
    return ignoreMissing(error);
  }
  await rm(beside, { recursive: true, force: true });
}

/** When a file was last modified, in milliseconds since 1970; `undefined` when there is none. */
export async function modified(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch (error) {
    return ignoreMissing(error);
  }
}

/** Whether a file is there and was last modified longer ago than this. */
export async function isOlder(path: string, ageMs: number): Promise<boolean> {
  const time = await modified(path);
  return time !== undefined && Date.now() - time > ageMs;
}

/** Somebody else may have removed a file in the meantime; any other error is thrown. */
export function ignoreMissing(error: unknown): undefined {
  if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") throw error;
  return undefined;
}
