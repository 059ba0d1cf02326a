import type { Mirror } from "./mirror.ts";
import { noProxies, type Proxies, type ProxyUrl } from "./proxy.ts";

/**
 * What the operator allows the registry client to do. Never a tenant's choice.
 *
 * Hosts are written as a registry is: `host` or `host:port`, lower case.
 */
export interface RegistryPolicy {
  /** Hosts spoken to over plain HTTP, at whatever address they have. */
  readonly insecureHosts: ReadonlySet<string>;
  /** Hosts spoken to over HTTPS that may have a private or loopback address. */
  readonly privateHosts: ReadonlySet<string>;
  /** Token realm hosts that a registry may name, beside itself and the well-known pairs. */
  readonly realmHosts?: ReadonlyMap<string, readonly string[]>;
  /** What is different at single hosts, by the host that requests go to (`registry-1.docker.io`, not `docker.io`). */
  readonly hosts?: ReadonlyMap<string, HostPolicy>;
  /** None when absent: the environment is not looked at. */
  readonly proxies?: Proxies;
  /** PEM certificates trusted in addition to the system's. */
  readonly ca?: string;
  /** Until the head of an answer has arrived, per attempt. */
  readonly requestTimeoutMs?: number;
  /** Between two chunks of a body. */
  readonly idleTimeoutMs?: number;
  /** For one operation with its retries, except the body of a stream. */
  readonly totalTimeoutMs?: number;
  /** Attempts of one request, the first one included. */
  readonly attemptsMax?: number;
  /** Requests at once to one host. */
  readonly connectionsPerHost?: number;
  /** While a host fails or is silent, one request goes out in so long. */
  readonly trialEveryMs?: number;
  /** Without a word for so long while somebody waits, a host is asked whether it is there. */
  readonly silentAfterMs?: number;
  /** By registry: who is asked for its blobs before it. */
  readonly mirrors?: ReadonlyMap<string, readonly Mirror[]>;
}

/** What the operator says of one host; what is absent is as everywhere. */
export interface HostPolicy {
  /**
   * Scheme, host and port at which it really is. Only the connection goes there: `Host`, TLS server name and every rule
   * about schemes, credentials and redirects keep to the host's own name. Its address may be private, and with `http:`
   * it is spoken to in the clear.
   */
  readonly connect?: URL;
  /** PEM certificates trusted for this host, in addition to the others. */
  readonly ca?: string;
  /** For this host alone, in place of the others'. */
  readonly proxy?: ProxyUrl | "none";
  /** Requests at once. */
  readonly connections?: number;
}

export type ResolvedPolicy = Required<Omit<RegistryPolicy, "ca">> & Pick<RegistryPolicy, "ca">;

/** Fills in the defaults. */
export function resolvePolicy(policy: RegistryPolicy): ResolvedPolicy {
  return {
    realmHosts: new Map(),
    hosts: new Map(),
    proxies: noProxies,
    requestTimeoutMs: 15_000,
    idleTimeoutMs: 30_000,
    totalTimeoutMs: 60_000,
    attemptsMax: 5,
    connectionsPerHost: 20,
    trialEveryMs: 500,
    silentAfterMs: 1_000,
    mirrors: new Map(),
    ...policy,
  };
}

/** Whether the operator's list names the host, with its port or (for the scheme's own port) without. */
export function lists(hosts: ReadonlySet<string>, url: URL): boolean {
  return hosts.has(url.host) || hosts.has(withPort(url));
}

/** What the operator says of the host of a URL. */
export function hostPolicy(policy: ResolvedPolicy, url: URL): HostPolicy {
  return policy.hosts.get(url.host) ?? policy.hosts.get(withPort(url)) ?? {};
}

function withPort(url: URL): string {
  return url.port === "" ? `${url.hostname}:${url.protocol === "https:" ? 443 : 80}` : url.host;
}
