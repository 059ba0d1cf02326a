import { RuntimeError } from "../error.ts";
import type { ContainerSpec } from "../spec.ts";
import { depthOf, mountTarget } from "./mount-target.ts";
import type { SecretFile } from "./secret-files.ts";

/** An entry of the bundle's `mounts`. */
export interface BundleMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** A tree or file of the host for a container; once it is attached, its mount has all the attributes that it needs. */
export interface PreparedMount {
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
}

const tmpfsSizeBytesMin = 4096;

/**
 * What a container has mounted beside what every one has: memory, the worker's own files, volumes, secrets. What lies
 * above another comes before it.
 * @throws RuntimeError `bad_config` for a place that cannot be, or that two are to be mounted at
 */
export function containerMounts(
  spec: ContainerSpec,
  trees: readonly PreparedMount[],
  secrets: readonly SecretFile[],
): BundleMount[] {
  const mounts = [
    ...spec.options.tmpfs.map(
      ({ path, sizeBytes, mode }): BundleMount => ({
        destination: mountTarget(path, "a tmpfs"),
        type: "tmpfs",
        source: "tmpfs",
        options: [
          "nosuid",
          "nodev",
          `mode=${(mode & 0o7777).toString(8)}`,
          `size=${Math.max(sizeBytes, tmpfsSizeBytesMin)}`,
        ],
      }),
    ),
    ...trees.map(({ source, target }) => bind(source, target, [])),
    ...secrets.map(({ source, target }) => bind(source, target, ["ro", "nosuid", "nodev", "noexec"])),
  ];
  const seen = new Set<string>();
  for (const { destination } of mounts) {
    if (seen.has(destination))
      throw new RuntimeError("bad_config", `two things are to be mounted at ${destination}`, {
        next: "Name each place once.",
      });
    seen.add(destination);
  }
  return mounts.toSorted((one, other) => depthOf(one.destination) - depthOf(other.destination));
}

function bind(source: string, target: string, more: readonly string[]): BundleMount {
  const options = ["bind", "rprivate", ...more];
  return { destination: mountTarget(target, "a file or directory"), type: "bind", source, options };
}
