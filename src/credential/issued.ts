import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import type { RegistryAuthorization } from "./provider.ts";

interface Issued {
  readonly authorization: RegistryAuthorization;
  readonly renewAtMs: number;
  readonly endsAtMs: number;
}

/** How long an authorization may be kept, beside what its issuer says. */
export interface KeepRule {
  /** Renewed after this time even if the issuer allows more. */
  readonly lifeMs: number;
  /** Renewed this long before the issuer's end. */
  readonly marginMs: number;
}

const entriesMax = 1000;

/**
 * Authorizations that an issuer (AWS, Google) made, kept until they are due for renewal: one request in flight per
 * credential, whoever waits. When a renewal fails, the old one serves until it truly ends. One whose end is already
 * past (a wrong clock, somewhere) is used once and not kept.
 */
export class IssuedAuthorizations {
  readonly #kept = new Map<string, Issued>();
  readonly #flights = new SingleFlight<RegistryAuthorization>();
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /**
   * @param key the credential's fingerprint
   * @param issue asks the issuer; bounded in time by itself, as several callers may wait for it
   * @param refresh the registry refused the one that we have
   */
  get(
    key: string,
    rule: KeepRule,
    issue: () => Promise<RegistryAuthorization>,
    options: { readonly signal?: AbortSignal | undefined; readonly refresh?: boolean | undefined } = {},
  ): Promise<RegistryAuthorization> {
    const kept = this.#kept.get(key);
    if (kept !== undefined && options.refresh !== true && this.#now() < kept.renewAtMs) {
      return Promise.resolve(kept.authorization);
    }
    const renewed = this.#flights.run(key, async () => this.#keep(key, rule, await issue()));
    const spare = options.refresh === true ? undefined : kept;
    const answered = renewed.catch((error: unknown) => {
      if (spare !== undefined && this.#now() < spare.endsAtMs) return spare.authorization;
      throw error;
    });
    return waitFor(answered, options.signal);
  }

  #keep(key: string, rule: KeepRule, authorization: RegistryAuthorization): RegistryAuthorization {
    const now = this.#now();
    const expiresAtMs = authorization.kind === "anonymous" ? undefined : authorization.expiresAt?.getTime();
    const endsAtMs = expiresAtMs ?? now + rule.lifeMs;
    const renewAtMs = Math.min(now + rule.lifeMs, endsAtMs - rule.marginMs);
    this.#kept.delete(key);
    if (renewAtMs > now) {
      this.#kept.set(key, { authorization, renewAtMs, endsAtMs });
      const oldest = this.#kept.keys().next();
      if (this.#kept.size > entriesMax && !oldest.done) this.#kept.delete(oldest.value);
    }
    return authorization;
  }
}
