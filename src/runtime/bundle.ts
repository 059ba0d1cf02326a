import { writeFileAtomic } from "../std/atomic-file.ts";
import { containerHostname, writeEtcFiles } from "./etc-files.ts";
import { makeDirectoryInRoot } from "./inside-root.ts";
import type { ContainerPaths } from "./layout.ts";
import { ownOpenFilesMax, processSection, workingDirectory } from "./process-section.ts";
import { type LimitSupport, linuxSection, mounts } from "./sandbox.ts";
import type { ContainerSpec } from "./spec.ts";
import type { ContainerUser } from "./user.ts";

const ociVersion = "1.0.2";
const rootOwner = { uid: 0, gid: 0 };

/**
 * Writes the OCI bundle (runtime specification, `config.md`) into the container's directory; the overlay must be
 * mounted: directories that the image names but lacks are made in its upper layer.
 * @throws RuntimeError `nothing_to_run`, `bad_config`
 */
export async function writeBundle(
  spec: ContainerSpec,
  user: ContainerUser,
  paths: ContainerPaths,
  cgroupsPath: string,
  support: LimitSupport,
): Promise<void> {
  const hostname = containerHostname(spec);
  const config = {
    ociVersion,
    root: { path: paths.merged, readonly: false },
    hostname,
    process: processSection(spec, user, hostname, await ownOpenFilesMax()),
    mounts: mounts(paths),
    linux: linuxSection(spec, cgroupsPath, support),
  };
  await writeEtcFiles(paths.etc, spec);
  await makeDirectoryInRoot(paths.merged, workingDirectory(spec.imageConfig), user);
  for (const volume of spec.imageConfig.config.Volumes)
    await makeDirectoryInRoot(paths.merged, volume, rootOwner);
  // The environment may hold what the user wants kept: nobody else reads it.
  await writeFileAtomic(paths.config, JSON.stringify(config), 0o600);
}
