import { existsSync } from "node:fs";
import type { PublishedPort } from "../../container/options.ts";
import { RuntimeError } from "../error.ts";
import { writeAttachedEtcFiles } from "../files/etc-files.ts";
import type { Host } from "../host.ts";
import type { ContainerPaths } from "../layout.ts";
import type { ContainerSpec } from "../spec.ts";

/** What a container's record keeps of its network. */
export interface NetworkPart {
  readonly address?: string;
  readonly ports: readonly PublishedPort[];
}

/** What a container is to have of the network. */
export type NetworkWish = Pick<ContainerSpec, "id" | "network" | "publish"> & {
  readonly options: Pick<ContainerSpec["options"], "ports">;
};

/** Refuses what cannot be connected, before anything of the container is made, and begins to make the host ready. */
export function checkNetwork(host: Host, spec: ContainerSpec): void {
  if (spec.network === "private") {
    host.networks.checkPrograms();
    // The rules are made while the root is mounted and the container created; a failure is told when they are waited for.
    host.networks.ready().catch(() => undefined);
    return;
  }
  if (spec.options.ports.length === 0) return;
  throw new RuntimeError(
    "network",
    spec.network === "host"
      ? "a container in the host's network cannot publish ports: what it listens on is the host's already"
      : "a container without a network cannot publish ports",
    { next: "Leave out --publish, or run with --network private." },
  );
}

/**
 * Connects a created container to its network before it is started. The namespace is the runtime's: one that was made before
 * could not belong to the container's user namespace, whose root then could not mount sysfs.
 */
export async function attachNetwork(
  host: Host,
  spec: NetworkWish,
  paths: ContainerPaths,
  pid: number,
): Promise<NetworkPart> {
  if (spec.network !== "private") return { ports: [] };
  const { address, ports, resolvers } = await host.networks.attach(
    { containerId: spec.id, pid, ports: spec.options.ports, publish: spec.publish },
    paths.network,
  );
  await writeAttachedEtcFiles(paths.etc, spec, address, resolvers);
  return { address, ports };
}

/** The `sysctl` part of the bundle; the values hold in the container's own network namespace only. */
export function networkSysctls(spec: ContainerSpec): Record<string, string> {
  if (spec.network === "host") return {};
  return {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
    // No link that comes later gets an address by itself; the loopback, which is there, keeps its own.
    ...(existsSync("/proc/sys/net/ipv6") ? { "net.ipv6.conf.default.disable_ipv6": "1" } : {}),
  };
}
