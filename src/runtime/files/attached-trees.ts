import { mkdir, readdir, rmdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { isVolumeName } from "../../container/check-options.ts";
import type { VolumeMount } from "../../container/options.ts";
import { type Attachment, attachTree, type IdExtent } from "../../native/attach.ts";
import { NativeError } from "../../native/error.ts";
import { umount } from "../../native/linux.ts";
import { errnoOf } from "../../std/error.ts";
import { printable } from "../../std/printable.ts";
import { tryRun } from "../../std/spawn.ts";
import { RuntimeError } from "../error.ts";
import type { Host } from "../host.ts";
import type { ContainerPaths } from "../layout.ts";
import type { ContainerSpec } from "../spec.ts";
import type { PreparedMount } from "./container-mounts.ts";
import { hostPath } from "./host-paths.ts";
import { findDirectoryInRoot } from "./inside-root.ts";

/**
 * Attaches what a container is to see of the host in a folder of its own, from which the runtime takes it: the worker's files,
 * host paths, volumes. All of it without setuid bits and devices, and with the container's owners where it has a user namespace:
 * what is root's is its root's.
 * @throws RuntimeError `volume`
 */
export async function attachTrees(
  host: Host,
  spec: ContainerSpec,
  paths: ContainerPaths,
  ids: readonly IdExtent[] | undefined,
  signal: AbortSignal,
): Promise<PreparedMount[]> {
  const trees: PreparedMount[] = [];
  const attach = async (tree: PreparedMount, followLinks: boolean): Promise<void> => {
    const target = join(paths.trees, String(trees.length));
    await attachMapped(host, spec, { ...tree, target, tame: true, ids, followLinks });
    trees.push({ ...tree, source: target });
  };
  if ((spec.binds ?? []).length + spec.options.volumes.length > 0) await mkdir(paths.trees, { mode: 0o700 });
  for (const bind of spec.binds ?? []) await attach({ ...bind, readOnly: true }, true);
  for (const volume of spec.options.volumes) {
    if (isVolumeName(volume.source)) {
      const source = await namedVolume(host, spec, volume, signal);
      await attach({ ...volume, source }, true);
    } else {
      const source = await hostPath(spec.hostPaths ?? [], volume);
      await attach({ ...volume, source }, false);
    }
  }
  return trees;
}

/** Detaches what {@link attachTrees} attached. Safe to repeat. */
export async function detachTrees(host: Host, paths: ContainerPaths): Promise<void> {
  for (const name of await readdir(paths.trees).catch(() => [])) {
    const target = join(paths.trees, name);
    // Out of sight at once, whoever is still in it: nothing of it is removed with the container's files.
    await umount(target, { detach: true }).catch((error: unknown) => {
      if (errnoOf(error) !== "EINVAL" && errnoOf(error) !== "ENOENT") throw error;
    });
    await rmdir(target).catch((error: unknown) => {
      if (errnoOf(error) === "ENOTDIR") return unlink(target);
      throw error;
    });
  }
  host.volumes.release(paths.id);
}

async function attachMapped(host: Host, spec: ContainerSpec, attachment: Attachment): Promise<void> {
  try {
    await attachTree(attachment);
    return;
  } catch (error) {
    if (
      attachment.ids === undefined ||
      !(error instanceof NativeError) ||
      !/^E(INVAL|PERM)$/.test(error.code)
    )
      throw cannotAttach(attachment, error);
  }
  // The container then sees owners as nobody, as with every file that is not in its map.
  host.logger.warning("a file system cannot map owners: a container sees its files as nobody's", {
    container: spec.id,
    source: attachment.source,
  });
  await attachTree({ ...attachment, ids: undefined }).catch((error: unknown) => {
    throw cannotAttach(attachment, error);
  });
}

function cannotAttach({ source }: Attachment, cause: unknown): RuntimeError {
  const why = cause instanceof NativeError ? cause.code : "unknown error";
  return new RuntimeError("volume", `${printable(source, 200)} could not be mounted (${why})`, { cause });
}

async function namedVolume(
  host: Host,
  spec: ContainerSpec,
  { source: name, target }: VolumeMount,
  signal: AbortSignal,
): Promise<string> {
  const volume = { workspaceId: spec.workspaceId, name };
  return await host.volumes.use(volume, spec.id, (directory) => fill(directory, spec, name, target, signal));
}

/** Puts into a new volume what the image has where it is to be mounted, with its owners; an empty directory where it has nothing. */
async function fill(
  directory: string,
  spec: ContainerSpec,
  name: string,
  target: string,
  signal: AbortSignal,
): Promise<void> {
  const source = await findDirectoryInRoot(spec.imageRoot, target);
  if (source === undefined) {
    await mkdir(directory, { mode: 0o755 });
    return;
  }
  const copy = ["cp", "--archive", "--one-file-system", "--no-target-directory", "--", source, directory];
  const { exitCode, stderr } = await tryRun(copy, { signal });
  if (exitCode === 0) return;
  throw new RuntimeError(
    "volume",
    `volume ${name} could not be filled with what the image has at ${printable(target, 200)}: ${stderr.trim().slice(0, 500)}`,
  );
}
