import { chown, readdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../std/atomic-file.ts";
import type { BundleMount } from "./files/container-mounts.ts";
import { containerHostname, writeEtcFiles } from "./files/etc-files.ts";
import { makeDirectoryInRoot } from "./files/inside-root.ts";
import type { RootFileSystem } from "./files/root-file-system.ts";
import type { ContainerUser } from "./files/user.ts";
import { hostOwner, withUserNamespace } from "./files/user-namespace.ts";
import type { ContainerPaths } from "./layout.ts";
import { ownOpenFilesMax, processSection, workingDirectory } from "./process-section.ts";
import { type LimitSupport, linuxSection, mounts } from "./sandbox.ts";
import type { ContainerSpec } from "./spec.ts";

const ociVersion = "1.0.2";

/**
 * Writes the OCI bundle (runtime specification, `config.md`) into the container's directory; the overlay must be
 * mounted: directories that the image names but lacks are made in its upper layer.
 * @throws RuntimeError `nothing_to_run`, `bad_config`
 */
export async function writeBundle(
  spec: ContainerSpec,
  user: ContainerUser,
  { ids }: RootFileSystem,
  ownMounts: readonly BundleMount[],
  paths: ContainerPaths,
  cgroupsPath: string,
  support: LimitSupport,
): Promise<void> {
  const hostname = containerHostname(spec);
  const config = {
    ociVersion,
    root: { path: paths.merged, readonly: spec.options.readOnly },
    hostname,
    process: processSection(spec, user, hostname, await ownOpenFilesMax()),
    mounts: allMounts(paths, ownMounts),
    linux: withUserNamespace(linuxSection(spec, cgroupsPath, support), ids),
  };
  const root = hostOwner(ids, { uid: 0, gid: 0 });
  await writeEtcFiles(paths.etc, spec);
  for (const name of await readdir(paths.etc)) await chown(join(paths.etc, name), root.uid, root.gid);
  const directory = workingDirectory(spec.imageConfig, spec.options.workingDirectory);
  await makeDirectoryInRoot(paths.merged, directory, hostOwner(ids, user));
  for (const volume of spec.imageConfig.config.Volumes) await makeDirectoryInRoot(paths.merged, volume, root);
  // The environment may hold what the user wants kept: nobody else reads it.
  await writeFileAtomic(paths.config, JSON.stringify(config), 0o600);
}

/** What every container has, but where the container has something else of its own; then what is its own. */
function allMounts(paths: ContainerPaths, own: readonly BundleMount[]): BundleMount[] {
  const taken = new Set(own.map(({ destination }) => destination));
  return [...mounts(paths).filter(({ destination }) => !taken.has(destination)), ...own];
}
