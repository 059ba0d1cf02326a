import { chmod, chown, mkdir, rmdir, stat } from "node:fs/promises";
import { attachTree, type IdExtent } from "../../native/attach.ts";
import { NativeError } from "../../native/error.ts";
import { umount } from "../../native/linux.ts";
import { errnoOf } from "../../std/error.ts";
import { RuntimeError } from "../error.ts";
import type { Host } from "../host.ts";
import type { ContainerPaths } from "../layout.ts";
import type { ContainerSpec } from "../spec.ts";
import { mountOverlay, unmountOverlay } from "./overlay.ts";
import { hostId, idExtents } from "./user-namespace.ts";
import { makeLayer, removeLayer } from "./writable-layer.ts";

/** A container's root that is mounted. */
export interface RootFileSystem {
  /** Where the container's range of ids begins; absent: it has no user namespace of its own. */
  readonly idBase?: number;
  /** The maps of its user namespace. */
  readonly ids?: readonly IdExtent[];
  /** Of the writable layer; 0: none. */
  readonly limitBytes: number;
}

/**
 * Mounts a container's root: the image's tree, shown with the owners of the container's user namespace where it gets one, and a
 * writable layer over it. With the host's network it gets none: its root could neither listen below 1024 nor see /sys.
 * @throws RuntimeError `overlay_failed`
 */
export async function mountRoot(
  host: Host,
  spec: ContainerSpec,
  paths: ContainerPaths,
): Promise<RootFileSystem> {
  const own = host.noUserNamespaces === undefined && spec.network !== "host";
  const mapped = own ? await attachLower(host, spec, paths) : undefined;
  await openWay(host, paths, mapped?.ids);
  const limitBytes = await makeLayer(host, paths, spec.options.storageBytes);
  const lower = mapped === undefined ? spec.imageRoot : paths.lower;
  await mountOverlay({ lower, upper: paths.upper, work: paths.work, target: paths.merged });
  // The overlay has a clone of its own.
  if (mapped !== undefined) await umount(paths.lower);
  return { ...mapped, limitBytes };
}

async function attachLower(host: Host, spec: ContainerSpec, paths: ContainerPaths) {
  const idBase = host.ids.take(spec.id);
  const ids = idExtents(idBase);
  try {
    await attachTree({ source: spec.imageRoot, target: paths.lower, ids, followLinks: true });
    return { idBase, ids };
  } catch (cause) {
    host.ids.free(spec.id);
    // What every mapped mount needs was tried when the worker began: it is the image's file system that cannot.
    if (cause instanceof NativeError && cause.code === "EINVAL") {
      host.logger.warning("the image's file system cannot map owners: no user namespace", {
        container: spec.id,
      });
      return undefined;
    }
    throw new RuntimeError("overlay_failed", `the image's tree cannot be had: ${String(cause)}`, { cause });
  }
}

/** Makes the folders on the way to the root; nobody but the container's own root user may come through. */
async function openWay(
  host: Host,
  paths: ContainerPaths,
  ids: readonly IdExtent[] | undefined,
): Promise<void> {
  await mkdir(host.paths.roots, { recursive: true });
  await mkdir(paths.mergedHome, { mode: 0o700 });
  if (ids === undefined) return;
  await chown(paths.mergedHome, 0, hostId(ids, 0));
  await chmod(paths.mergedHome, 0o710);
}

/** Unmounts what {@link mountRoot} mounted, however far it came. Safe to repeat. */
export async function unmountRoot(host: Host, paths: ContainerPaths): Promise<void> {
  await unmountOverlay(paths.merged);
  await removeMountPoint(paths.merged);
  await removeMountPoint(paths.mergedHome);
  if (await isThere(paths.formerMerged)) {
    await unmountOverlay(paths.formerMerged);
    await removeMountPoint(paths.formerMerged);
  }
  if (await isThere(paths.lower)) {
    await unmountOverlay(paths.lower);
    await removeMountPoint(paths.lower);
  }
  await removeLayer(paths);
  host.ids.free(paths.id);
}

/** Should anything be mounted there still, nothing below it must be removed. */
async function removeMountPoint(directory: string): Promise<void> {
  try {
    await rmdir(directory);
  } catch (cause) {
    if (errnoOf(cause) === "ENOENT") return;
    throw new RuntimeError("cleanup_failed", `${directory} is still in use`, { cause });
  }
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
