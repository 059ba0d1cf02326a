import { chmod, chown, mkdir, readFile, stat } from "node:fs/promises";
import { messageOf } from "../std/error.ts";
import { run, tryRun } from "../std/spawn.ts";
import { sleep } from "../std/wait.ts";
import { RuntimeError } from "./error.ts";

/**
 * - `index` keeps hard links over a copy-up; `metacopy` makes a chown of a large file cheap.
 * - `volatile`: the upper layer does not outlive the host, so nothing of it needs to reach the disk.
 */
const mountOptions = ["index=on", "metacopy=on", "volatile"];
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
  const options = [
    `lowerdir=${optionValue(lower)}`,
    `upperdir=${optionValue(upper)}`,
    `workdir=${optionValue(work)}`,
    ...mountOptions,
  ];
  try {
    for (const directory of [upper, work, target]) await mkdir(directory, { recursive: true });
    // The container's root directory is as the upper one is.
    const root = await stat(lower);
    await chown(upper, root.uid, root.gid);
    await chmod(upper, root.mode & 0o7777);
    await run(["mount", "-t", "overlay", "overlay", "-o", options.join(","), target]);
  } catch (cause) {
    throw new RuntimeError(
      "overlay_failed",
      `the writable layer at ${target} could not be mounted: ${messageOf(cause)}`,
      {
        cause,
        next: "Keep the state directory on a local ext4 or xfs file system, not on an overlay.",
      },
    );
  }
}

/** Unmounts what is mounted at `target`; waits for readers that are on their way. Nothing mounted is fine. */
export async function unmountOverlay(target: string): Promise<void> {
  let message = "";
  for (let tries = 0; tries < unmountTriesMax; tries += 1) {
    if (!(await isMounted(target))) return;
    const { exitCode, stderr } = await tryRun(["umount", target]);
    if (exitCode === 0) continue;
    message = stderr.trim();
    await sleep(Math.min(unmountPauseMsMax, 10 * 2 ** tries));
  }
  throw new RuntimeError(
    "overlay_failed",
    `the writable layer at ${target} could not be unmounted: ${message}`,
    {
      next: "Find who uses it with `fuser -vm`, then try again.",
    },
  );
}

async function isMounted(target: string): Promise<boolean> {
  const mountinfo = await readFile("/proc/self/mountinfo", "utf8");
  return mountinfo.split("\n").some((line) => decodeOctal(line.split(" ")[4] ?? "") === target);
}

/** mountinfo writes space, tab, newline and backslash in octal. */
function decodeOctal(field: string): string {
  return field.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** Colons part lower layers, commas part options, and a backslash takes their meaning from them. */
function optionValue(path: string): string {
  return path.replace(/[\\:,]/g, (character) => `\\${character}`);
}
