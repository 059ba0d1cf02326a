import { printable } from "../std/printable.ts";
import { isVolumeName } from "./check-options.ts";
import { ContainerError } from "./error.ts";
import type { ContainerNetwork, ContainerOptions, PublishedPort, VolumeMount } from "./options.ts";

/** What the operator allows the containers of a workspace. */
export interface ContainerPolicy {
  readonly hostNetwork: boolean;
  /** Of containers that ask for none. */
  readonly defaultNetwork: "private" | "none";
  /** Directories of workers' hosts, with all below: `/data`, `/models:ro`. */
  readonly hostPaths: readonly string[];
  /** `ADDRESS:FIRST-LAST` or `ADDRESS:PORT`. */
  readonly publish: readonly string[];
}

export type ContainerPolicies = (workspaceId: string) => Promise<ContainerPolicy>;

/** Host ports at one address, the last included. */
export interface PortRange {
  readonly address: string;
  readonly first: number;
  readonly last: number;
}

/**
 * Refuses what the operator does not allow. A worker looks again by its own configuration: here it is told at once.
 *
 * @throws ContainerError `not_allowed`, which says what is allowed
 */
export function checkAllowed(
  policy: ContainerPolicy,
  network: ContainerNetwork,
  { ports, volumes }: Pick<ContainerOptions, "ports" | "volumes">,
): void {
  if (network === "host" && !policy.hostNetwork) {
    throw notAllowed(
      "the operator does not allow this workspace the host's network",
      "He allows it by `host_network = true` for the workspace in the configuration.",
    );
  }
  for (const port of ports) checkPort(policy, port);
  for (const volume of volumes) if (!isVolumeName(volume.source)) checkHostPath(policy, volume);
}

/** @param text `127.0.0.1:1024-65535`, `10.0.0.1:443` */
export function parsePortRange(text: string): PortRange {
  const [address = "", ports = ""] = text.split(":");
  const [first = "", last = first] = ports.split("-");
  return { address, first: Number(first), last: Number(last) };
}

/** Whether a host port may be had within a range; port 0 wherever the range has its address. */
export function isWithin({ address, first, last }: PortRange, port: PublishedPort): boolean {
  // Of every address, each is one.
  if (address !== port.hostAddress && address !== "0.0.0.0") return false;
  return port.hostPort === 0 || (port.hostPort >= first && port.hostPort <= last);
}

/** Whether a directory of a host, as it is written, lies within what is allowed. Links in it are the worker's to look at. */
export function isBelow(allowed: string, { source, readOnly }: VolumeMount): boolean {
  const [root = "", mode] = allowed.split(":");
  if (mode === "ro" && !readOnly) return false;
  const [within, path] = [parts(root), parts(source)];
  return within.every((part, at) => path[at] === part);
}

function parts(path: string): string[] {
  return path.split("/").filter((part) => part !== "");
}

function checkPort({ publish }: ContainerPolicy, port: PublishedPort): void {
  if (publish.map(parsePortRange).some((range) => isWithin(range, port))) return;
  const which =
    port.hostPort === 0 ? `a port at ${port.hostAddress}` : `${port.hostAddress}:${port.hostPort}`;
  throw notAllowed(
    `the operator does not allow this workspace to publish ${which}`,
    publish.length === 0
      ? "It may publish none: he allows some by `publish` for the workspace in the configuration."
      : `It may publish ${publish.join(", ")}: he sets that by \`publish\` for the workspace in the configuration.`,
  );
}

function checkHostPath({ hostPaths }: ContainerPolicy, volume: VolumeMount): void {
  if (hostPaths.some((allowed) => isBelow(allowed, volume))) return;
  const readable = hostPaths.some((allowed) => isBelow(allowed, { ...volume, readOnly: true }));
  const path = printable(volume.source);
  if (readable) throw notAllowed(`this workspace may only read ${path}`, "Add :ro to the volume.");
  throw notAllowed(
    `the operator does not allow this workspace the directory ${path} of workers' hosts`,
    hostPaths.length === 0
      ? "It may have none: he allows some by `host_paths` for the workspace in the configuration. A volume with a name needs no leave."
      : `It may have ${hostPaths.join(", ")}: he sets that by \`host_paths\` for the workspace in the configuration.`,
  );
}

function notAllowed(message: string, next: string): ContainerError {
  return new ContainerError("not_allowed", message, { next });
}
