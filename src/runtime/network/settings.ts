import { createHash } from "node:crypto";
import { resolve } from "node:path";

/** How the private networks of a worker's containers are made: `[worker.network]` of the configuration. */
export interface NetworkSettings {
  /** IPv4 range, such as `10.210.0.0/16`, from which each container gets an address. */
  readonly subnet: string;
  /** Folders with CNI plugins; the first that has one counts. */
  readonly cniPath: readonly string[];
  /** Name servers of containers; absent: the host's. */
  readonly dns?: readonly string[] | undefined;
  /** IPv4 ranges that containers may not reach. */
  readonly deny: readonly string[];
  /** Whether containers reach the host itself. */
  readonly allowHost: boolean;
  /** What a container may have open to the world at once; absent: a quarter of what the host can keep track of. */
  readonly connectionsMax?: number | undefined;
  /** Absent: that of the interface with the host's default route. */
  readonly mtu?: number | undefined;
}

/** Where clouds answer their hosts, with credentials too: link-local addresses, Alibaba's, Azure's, Oracle's. */
export const metadataRanges: readonly string[] = [
  "169.254.0.0/16",
  "100.100.100.200/32",
  "168.63.129.16/32",
  "192.0.0.192/32",
];

export const defaultNetworkSettings: NetworkSettings = {
  subnet: "10.210.0.0/16",
  cniPath: ["/opt/cni/bin", "/usr/lib/cni"],
  deny: metadataRanges,
  allowHost: false,
};

/** Names in the host's network that two workers on one host do not share. */
export interface NetworkNames {
  /** How the host's ends of this worker's links begin. */
  readonly linkPrefix: string;
  /** How this worker's iptables chains begin. */
  readonly chainPrefix: string;
}

/** From the state directory; an interface's name has at most 15 characters, a chain's 28. */
export function networkNames(stateDir: string): NetworkNames {
  const key = createHash("sha256").update(resolve(stateDir)).digest("hex").slice(0, 5);
  return { linkPrefix: `on${key}-`, chainPrefix: `OCI-NODE-${key}-` };
}

/** The host's end of the link to the container with this address: its place in the subnet tells it from others. */
export function linkName(names: NetworkNames, subnet: string, address: string): string {
  const [, bits] = parseRange(subnet);
  const place = numberOf(address) % 2 ** (32 - bits);
  return `${names.linkPrefix}${place.toString(16)}`;
}

/** Workers on one host that use one subnet share its leases, and so never give an address twice. */
export function networkName(subnet: string): string {
  return `oci-node-${subnet.replace("/", "-")}`;
}

/** Whether two IPv4 ranges share an address. */
export function overlaps(one: string, other: string): boolean {
  const [[first, bits], [second, otherBits]] = [parseRange(one), parseRange(other)];
  const size = 2 ** (32 - Math.min(bits, otherBits));
  return Math.floor(first / size) === Math.floor(second / size);
}

function parseRange(range: string): [address: number, bits: number] {
  const [address = "", bits = "32"] = range.split("/");
  return [numberOf(address), Number(bits)];
}

function numberOf(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}
