import type { Mirror } from "./mirror.ts";

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

export type ResolvedPolicy = Required<Omit<RegistryPolicy, "ca">> & Pick<RegistryPolicy, "ca">;

/** Fills in the defaults. */
export function resolvePolicy(policy: RegistryPolicy): ResolvedPolicy {
  return {
    realmHosts: new Map(),
    requestTimeoutMs: 15_000,
    idleTimeoutMs: 30_000,
    totalTimeoutMs: 60_000,
    attemptsMax: 5,
    connectionsPerHost: 16,
    trialEveryMs: 500,
    silentAfterMs: 1_000,
    mirrors: new Map(),
    ...policy,
  };
}
