import { BlockList, isIPv4, isIPv6 } from "node:net";

/** Ranges that are no host on the public internet (IANA special-purpose registries for IPv4 and IPv6, RFC 6890). */
const special4: readonly (readonly [network: string, bits: number])[] = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  // Azure's host, as each of its machines sees it: public by its number only.
  ["168.63.129.16", 32],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.31.196.0", 24],
  ["192.52.193.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["192.175.48.0", 24],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 3],
];

/** Inside 2000::/3, the only part of IPv6 that is handed out. */
const special6: readonly (readonly [network: string, bits: number])[] = [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["2620:4f:8000::", 48],
  ["3fff::", 20],
];

const denied4 = new BlockList();
for (const [network, bits] of special4) denied4.addSubnet(network, bits, "ipv4");
const denied6 = new BlockList();
for (const [network, bits] of special6) denied6.addSubnet(network, bits, "ipv6");
const global6 = new BlockList();
global6.addSubnet("2000::", 3, "ipv6");

/**
 * Whether an address (not a name) is one of the public internet. IPv4 inside IPv6 (mapped `::ffff:0:0/96`, NAT64
 * `64:ff9b::/96`) is judged by the IPv4 address; whatever is not plainly public is not.
 */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !denied4.check(address, "ipv4");
  if (!isIPv6(address) || address.includes("%")) return false;
  const inner = innerIpv4(address);
  if (inner !== undefined) return !denied4.check(inner, "ipv4");
  return global6.check(address, "ipv6") && !denied6.check(address, "ipv6");
}

function innerIpv4(address: string): string | undefined {
  const groups = expand(address);
  const head = groups.slice(0, 6).join(":");
  if (head !== "0:0:0:0:0:ffff" && head !== "64:ff9b:0:0:0:0") return undefined;
  const [high = 0, low = 0] = groups.slice(6).map((group) => Number.parseInt(group, 16));
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

/** The eight groups of a valid IPv6 address, as WHATWG URL writes them, without leading zeros. */
function expand(address: string): string[] {
  const text = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [left = "", right] = text.split("::");
  const before = left === "" ? [] : left.split(":");
  if (right === undefined) return before;
  const after = right === "" ? [] : right.split(":");
  return [...before, ...new Array<string>(8 - before.length - after.length).fill("0"), ...after];
}
