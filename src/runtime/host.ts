import type { Logger } from "../std/log.ts";
import type { Cgroups } from "./cgroups.ts";
import type { ExitWatch } from "./exit-watch.ts";
import type { IdRanges } from "./files/user-namespace.ts";
import type { Volumes } from "./files/volumes.ts";
import type { StatePaths } from "./layout.ts";
import type { PrivateNetworks } from "./network/network.ts";
import type { OciRuntime } from "./oci-runtime.ts";
import type { DirectoryWatch } from "./output/directory-watch.ts";

/** What all containers of one state directory share. */
export interface Host {
  readonly paths: StatePaths;
  readonly oci: OciRuntime;
  /** conmon's path. */
  readonly monitorProgram: string;
  readonly cgroups: Cgroups;
  /** Relative to the root of each hierarchy. */
  readonly cgroupParent: string;
  readonly networks: PrivateNetworks;
  readonly exits: ExitWatch;
  readonly logWatch: DirectoryWatch;
  readonly logSizeMaxBytes: number;
  readonly logger: Logger;
  readonly ids: IdRanges;
  readonly volumes: Volumes;
  /** Of each container's writable layer; 0: none. */
  readonly storageLimitBytes: number;
  /** Makes the file systems of limited layers. */
  readonly mkfsProgram: string;
  /** Why containers get no user namespaces of their own; absent: they do. */
  readonly noUserNamespaces?: string | undefined;
}

/** The cgroup above those of containers and monitors. */
export const defaultCgroupParent = "oci-node";

export function cgroupOf(host: Host, id: string): string {
  return `/${host.cgroupParent}/${id}`;
}

export function monitorCgroup(host: Host): string {
  return monitorsOf(host.cgroupParent);
}

/** Where monitors live, and whatever else outlives the worker, apart from the containers and from the worker's own unit. */
export function monitorsOf(cgroupParent: string): string {
  return `/${cgroupParent}/.monitors`;
}
