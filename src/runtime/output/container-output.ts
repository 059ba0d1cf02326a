import { chown, stat } from "node:fs/promises";
import type { Owner } from "../files/user-namespace.ts";

/**
 * Gives the pipes that a container's process has as standard input, output and error to its user, so that it may open
 * /dev/stdout and the like anew. A runtime does so itself, but from inside of a user namespace it cannot.
 */
export async function giveOutput(pid: number, { uid, gid }: Owner): Promise<void> {
  for (const descriptor of [0, 1, 2]) {
    const path = `/proc/${pid}/fd/${descriptor}`;
    if ((await stat(path)).isFIFO()) await chown(path, uid, gid);
  }
}
