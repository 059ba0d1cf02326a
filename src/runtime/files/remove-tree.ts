import { lstat } from "node:fs/promises";
import { errnoOf } from "../../std/error.ts";
import { tryRun } from "../../std/spawn.ts";
import { RuntimeError } from "../error.ts";

/**
 * Removes a directory that a container wrote to, however deep it is, without going into what is mounted in it. rm(1) goes down
 * by descriptors: thousands of levels, whose paths Linux does not take, cost it nothing. Nothing there is fine.
 * @throws RuntimeError `cleanup_failed`
 */
export async function removeTree(directory: string): Promise<void> {
  try {
    await lstat(directory);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  const { exitCode, stderr } = await tryRun([
    "rm",
    "--recursive",
    "--force",
    "--one-file-system",
    "--",
    directory,
  ]);
  if (exitCode === 0) return;
  throw new RuntimeError(
    "cleanup_failed",
    `${directory} could not be removed: ${stderr.trim().slice(0, 500)}`,
  );
}
