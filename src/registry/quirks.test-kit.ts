import { createProvider } from "../credential/create-provider.ts";
import { anonymousProvider, type CredentialProvider } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import { parseReference } from "../reference/reference.ts";
import { RegistryClient, type RegistryClientOptions } from "./client.ts";
import { FailedLogins } from "./failed-logins.ts";
import type { RegistryPolicy } from "./policy.ts";
import type { Repository } from "./repository.ts";
import type { Clock } from "./retry.ts";

/** A clock whose sleeps pass at once and are written down. */
export interface VirtualClock extends Clock {
  readonly slept: readonly number[];
  pass(timeMs: number): void;
}

export function virtualClock(startMs = Date.UTC(2026, 0, 1)): VirtualClock {
  let nowMs = startMs;
  const slept: number[] = [];
  return {
    slept,
    now: () => nowMs,
    random: () => 1,
    pass: (timeMs) => {
      nowMs += timeMs;
    },
    sleep: async (timeMs, signal) => {
      signal.throwIfAborted();
      slept.push(timeMs);
      nowMs += timeMs;
    },
  };
}

export interface QuirkOptions extends Omit<RegistryClientOptions, "policy"> {
  readonly policy?: Partial<RegistryPolicy>;
  readonly password?: string;
  readonly provider?: CredentialProvider;
}

/** `HOST/acme/app:1` of a server that is spoken to over plain HTTP. */
export function repositoryAt(host: string, options: QuirkOptions = {}): Repository {
  const { policy, password, provider, ...rest } = options;
  const client = new RegistryClient({
    clock: virtualClock(),
    failedLogins: new FailedLogins(),
    ...rest,
    policy: { insecureHosts: new Set([host]), privateHosts: new Set(), trialEveryMs: 5, ...policy },
  });
  const made = provider ?? (password === undefined ? anonymousProvider(host) : basicProvider(host, password));
  return client.repository(parseReference(`${host}/acme/app:1`), made);
}

export function basicProvider(registry: string, password: string): CredentialProvider {
  const credentials = credentialMap({ USERNAME: "alice", PASSWORD: password });
  return createProvider({ registry, type: "basic", credentials });
}
