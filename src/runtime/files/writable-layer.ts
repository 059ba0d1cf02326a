import { mkdir, mkdtemp, open, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { scratchMount, shutdownFileSystem, umount } from "../../native/linux.ts";
import { messageOf } from "../../std/error.ts";
import { formatSize } from "../../std/size.ts";
import { run } from "../../std/spawn.ts";
import { RuntimeError } from "../error.ts";
import type { Host } from "../host.ts";
import type { ContainerPaths } from "../layout.ts";
import { unmountOverlay } from "./overlay.ts";
import { removeTree } from "./remove-tree.ts";

/** Below that ext4 has next to no room beside its own. */
const limitBytesMin = 16 * 1024 * 1024;
/** Of what the disk has left, a layer may take so much: what a file system in a file has no room for is lost, not refused. */
const shareOfFree = 0.9;
const blockBytes = 4096;
export const defaultMkfsProgram = "mkfs.ext4";
const mkfsTimeoutMs = 60_000;
const fullBelowBytes = 1024 * 1024;

/**
 * How much a container may write: what it asks for, at most what the operator allows; where it asks for nothing, that.
 * @returns bytes; 0: no limit
 */
export function layerLimit(askedBytes: number, operatorBytes: number): number {
  if (askedBytes === 0 || operatorBytes === 0) return askedBytes || operatorBytes;
  return Math.min(askedBytes, operatorBytes);
}

/**
 * Makes the folder of a container's writable layer. With a limit it is a file system of that size in a sparse file: what is
 * written beyond is ENOSPC for this container, and for no other. Without a journal, and nothing of it is written before it must
 * be: it does not outlive the host. It is no larger than what the disk has room for now; a disk that is nearly full is the limit
 * itself. Where the operator's own limit cannot be held, there is none; one that was asked for is.
 * @returns the limit that holds, in bytes; 0: none
 * @throws RuntimeError `overlay_failed`
 */
export async function makeLayer(host: Host, paths: ContainerPaths, askedBytes: number): Promise<number> {
  const wantedBytes = layerLimit(askedBytes, host.storageLimitBytes);
  await mkdir(paths.layer, { mode: 0o700 });
  const { bavail, bsize } = await statfs(paths.layer);
  const limitBytes = Math.min(wantedBytes, Math.floor(bavail * bsize * shareOfFree));
  if (limitBytes < limitBytesMin) return 0;
  try {
    await makeScratch(paths.layerFile, paths.layer, limitBytes, host.mkfsProgram);
    return limitBytes;
  } catch (cause) {
    const why = messageOf(cause);
    if (askedBytes === 0) {
      host.logger.warning("a writable layer could not be limited", { container: paths.id, why });
      await rm(paths.layerFile, { force: true });
      return 0;
    }
    throw new RuntimeError("overlay_failed", `the writable layer could not be limited: ${why}`, {
      cause,
      next: "Install e2fsprogs and see that loop devices work (`oci-node doctor`), or run without the limit.",
    });
  }
}

async function makeScratch(path: string, target: string, sizeBytes: number, mkfs: string): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.truncate(sizeBytes - (sizeBytes % blockBytes));
  } finally {
    await file.close();
  }
  const features = "^has_journal,^resize_inode";
  const options = ["-q", "-F", "-m", "0", "-b", String(blockBytes), "-O", features];
  const lazy = ["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"];
  await run([mkfs, ...options, ...lazy, path], { timeoutMs: mkfsTimeoutMs });
  await scratchMount(path, target);
}

/** Why writable layers cannot be limited here, tried in `directory`; `undefined` when they can. */
export async function layerProblem(
  directory: string,
  mkfs = defaultMkfsProgram,
): Promise<string | undefined> {
  const home = await mkdtemp(join(directory, ".layer-"));
  const [file, target] = [join(home, "layer.ext4"), join(home, "layer")];
  try {
    await mkdir(target);
    await makeScratch(file, target, limitBytesMin, mkfs);
    await umount(target);
    return undefined;
  } catch (error) {
    return messageOf(error);
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

/** Removes the layer with all that the container wrote. Nothing there is fine. */
export async function removeLayer(paths: ContainerPaths): Promise<void> {
  if (await isMountPoint(paths)) {
    await shutdownFileSystem(paths.layer);
    await unmountOverlay(paths.layer);
  }
  await rm(paths.layerFile, { force: true });
  await removeTree(paths.layer);
}

/** What a container that has ended may have had no room for, as a sentence; `undefined` where it had room. */
export async function fullLayer(paths: ContainerPaths, exitCode: number): Promise<string | undefined> {
  const limited = await isMountPoint(paths);
  if (await isFull(paths.home)) {
    const full = `the disk of its writable layer has no space left (${paths.home})`;
    // Several layers together may promise more than the disk has: the program is then told at its fsync at most.
    if (limited) return `${full}: what it wrote last may be lost`;
    if (exitCode !== 0) return full;
  }
  if (exitCode === 0 || !limited || !(await isFull(paths.layer))) return undefined;
  const { size } = await stat(paths.layerFile);
  return `its writable layer is full (${formatSize(size)})`;
}

async function isMountPoint({ layer, home }: ContainerPaths): Promise<boolean> {
  const [own, outer] = await Promise.all([layer, home].map((path) => stat(path).catch(() => undefined)));
  return own !== undefined && own.dev !== outer?.dev;
}

/** Whether next to nothing can be written on a folder's disk. */
async function isFull(directory: string): Promise<boolean> {
  const { bavail, bsize, files, ffree } = await statfs(directory);
  return bavail * bsize < fullBelowBytes || (files > 0 && ffree === 0);
}
