import { isIP } from "node:net";
import { isPublicAddress } from "./address.ts";
import type { Addresses } from "./addresses.ts";
import { RegistryError, type Where } from "./error.ts";
import { insecureHint } from "./pinned-fetch.ts";
import { hostPolicy, lists, type ResolvedPolicy } from "./policy.ts";
import { type ProxyUrl, proxyBefore } from "./proxy.ts";

/** A way to a host. Whatever it is, the host keeps its name: in `Host`, and as TLS server name. */
export type Route = {
  /** PEM certificates trusted in addition to the system's. */
  readonly authorities: readonly string[];
} & (
  | {
      /** Judged: the connection goes to this very one. */
      readonly address: string;
      /** Gives scheme and port in place of the URL's, when the host is not where its name says. */
      readonly connect: URL | undefined;
      readonly proxy?: undefined;
    }
  | {
      /** Looks the name up, and makes the connection. */
      readonly proxy: ProxyUrl;
    }
);

/** What is to be asked, as far as the way to it goes. */
export interface Destination {
  readonly url: URL;
  readonly where: Where;
  /** The URL is the operator's own: plain HTTP and private addresses are as he wrote it. Never for what others name. */
  readonly trusted?: boolean;
  /** Where no proxy is of use: a metadata service is this machine's own. */
  readonly direct?: boolean;
}

const addressesMax = 3;

/** @throws RegistryError `egress_refused` when nobody may be asked so, wherever the host is */
export function checkDestination({ url, where, trusted }: Destination, policy: ResolvedPolicy): void {
  if (url.username !== "" || url.password !== "")
    throw refusal(where, `${where.registry} leads to an address with a user name in it`);
  if (url.protocol === "https:") return;
  if (url.protocol !== "http:")
    throw refusal(where, `${where.registry} leads to an address that is not HTTPS`);
  if (trusted === true || lists(policy.insecureHosts, url)) return;
  throw refusal(where, `${url.host} would be spoken to without encryption`, insecureHint(url));
}

/**
 * The ways to a host, at least one: its addresses that were judged good, the place where the operator says that it is, or
 * his proxy.
 *
 * Behind a proxy nothing can be pinned, as the proxy looks the name up. What can be judged here is: an address in place of
 * a name, a name that is private by itself, and a name that this machine can look up and finds, with any of its addresses,
 * at a private place. The proxy's own rules have to do for the rest.
 *
 * @throws RegistryError `egress_refused`, `unreachable`; the signal's reason when it aborts
 */
export async function findRoutes(
  destination: Destination,
  policy: ResolvedPolicy,
  addresses: Addresses,
  signal: AbortSignal,
): Promise<readonly [Route, ...Route[]]> {
  const { url, where } = destination;
  const { connect, ca } = hostPolicy(policy, url);
  const authorities = [policy.ca, ca].filter((pem) => pem !== undefined);
  const trusted =
    destination.trusted === true || lists(policy.insecureHosts, url) || lists(policy.privateHosts, url);
  const proxy = proxyFor(destination, policy);
  if (proxy !== undefined) {
    if (!trusted && !(await mayBePublic(url, addresses, signal))) throw notPublic(destination);
    return [{ proxy, authorities }];
  }
  const all = await addresses.of(connect ?? url, where, signal);
  const permitted = trusted || connect !== undefined ? all : all.filter(isPublicAddress);
  const [first, ...more] = permitted
    .slice(0, addressesMax)
    .map((address) => ({ address, connect, authorities }));
  if (first === undefined) throw notPublic(destination);
  return [first, ...more];
}

/** A host that is elsewhere is reached directly, unless a proxy is named for it alone. */
function proxyFor({ url, direct }: Destination, policy: ResolvedPolicy): ProxyUrl | undefined {
  const { connect, proxy } = hostPolicy(policy, url);
  if (direct === true || proxy === "none") return undefined;
  if (proxy !== undefined) return proxy;
  return connect === undefined ? proxyBefore(policy.proxies, url) : undefined;
}

async function mayBePublic(url: URL, addresses: Addresses, signal: AbortSignal): Promise<boolean> {
  const hostname = url.hostname.replace(/^\[|\]$/g, "");
  if (isIP(hostname) === 0 && isPrivateName(hostname)) return false;
  const found = await addresses.find(url, signal);
  // Of several, which one the proxy takes is not known here.
  return found === undefined || found.every(isPublicAddress);
}

/** Names that no public DNS gives out: of one label, and RFC 6761, 6762, 8375 with ICANN's `internal`. */
function isPrivateName(hostname: string): boolean {
  const name = hostname.replace(/\.$/, "");
  return !name.includes(".") || /\.(localhost|local|internal|home\.arpa)$/.test(name);
}

function notPublic({ url, where }: Destination): RegistryError {
  return refusal(where, `${url.host} has no address on the public internet`, insecureHint(url));
}

function refusal(
  where: Where,
  message: string,
  next = "Use a registry with public HTTPS addresses.",
): RegistryError {
  return new RegistryError("egress_refused", message, where, { next });
}
