import { chmod, chown, mkdir, stat } from "node:fs/promises";
import { overlayMount, umount } from "../../native/linux.ts";
import { readMounts } from "../../native/mountinfo.ts";
import { errnoOf, messageOf } from "../../std/error.ts";
import { sleep } from "../../std/wait.ts";
import { RuntimeError } from "../error.ts";

/**
 * - `index` keeps hard links over a copy-up; `metacopy` makes a chown of a large file cheap.
 * - `volatile`: the upper layer does not outlive the host, so nothing of it needs to reach the disk.
 */
const mountOptions = { index: "on", metacopy: "on", volatile: true } as const;
const unmountTriesMax = 40;
const unmountPauseMsMax = 500;

export interface OverlayDirectories {
  readonly lower: string;
  readonly upper: string;
  readonly work: string;
  readonly target: string;
}

/**
 * Mounts a writable layer over a read-only tree (Documentation/filesystems/overlayfs.rst). Makes the directories.
 * @throws RuntimeError `overlay_failed`
 */
export async function mountOverlay(directories: OverlayDirectories): Promise<void> {
  const { lower, upper, work, target } = directories;
  try {
    for (const directory of [upper, work, target]) await mkdir(directory, { recursive: true });
    // The container's root directory is as the upper one is.
    const root = await stat(lower);
    await chown(upper, root.uid, root.gid);
    await chmod(upper, root.mode & 0o7777);
    await overlayMount({ lower: [lower], upper, work, target, options: mountOptions });
  } catch (cause) {
    throw new RuntimeError("overlay_failed", `the writable layer could not be mounted: ${messageOf(cause)}`, {
      cause,
      next: "Keep the state directory on a local ext4 or xfs file system, not on an overlay.",
    });
  }
}

/**
 * Unmounts what is mounted at `target`, waiting for readers that are on their way out. Nothing mounted is fine.
 * @throws RuntimeError `overlay_failed`
 */
export async function unmountOverlay(target: string): Promise<void> {
  let failure: unknown;
  for (let tries = 0; tries < unmountTriesMax; tries += 1) {
    if (!(await isMounted(target))) return;
    try {
      await umount(target);
    } catch (error) {
      failure = error;
      if (errnoOf(error) !== "EBUSY") break;
      await sleep(Math.min(unmountPauseMsMax, 10 * 2 ** tries));
    }
  }
  throw new RuntimeError(
    "overlay_failed",
    `the writable layer could not be unmounted: ${messageOf(failure)}`,
    {
      cause: failure,
      next: "Find who uses it with `fuser -vm`, then try again.",
    },
  );
}

async function isMounted(target: string): Promise<boolean> {
  return (await readMounts()).some((mount) => mount.mountpoint === target);
}
