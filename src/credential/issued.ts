import { SingleFlight } from "../std/single-flight.ts";
import { sleep, waitFor } from "../std/wait.ts";
import type { RegistryAuthorization } from "./provider.ts";

interface Issued<T> {
  readonly authorization: T;
  readonly renewAtMs: number;
  readonly endsAtMs: number;
}

interface Failed {
  readonly error: unknown;
  readonly untilMs: number;
}

/** How long an authorization may be kept, beside what its issuer says. */
export interface KeepRule {
  /** Renewed after this time even if the issuer allows more. */
  readonly lifeMs: number;
  /** Renewed this long before the issuer's end, but not in the first half of its life. */
  readonly marginMs: number;
}

const entriesMax = 1000;
/** After a failure nobody asks for so long. */
const failedForMs = 1_000;
/** … and while the old one serves, for longer: nothing is lost meanwhile. */
const failedWithSpareForMs = 10_000;
/** Whoever has an old one that is still good does not wait longer for the new one. */
const renewalPatienceMs = 2_000;

/** When an issuer was asked for what it made, by a clock of whoever keeps it. */
const questions = new WeakMap<object, { readonly atMs: number; readonly now: () => number }>();

/** How long ago an issuer was asked for this very object; `undefined`: it is none that was kept here. */
export function issuedAgoMs(authorization: object): number | undefined {
  const asked = questions.get(authorization);
  return asked === undefined ? undefined : Math.max(0, asked.now() - asked.atMs);
}

/**
 * Authorizations (or keys) that an issuer (AWS, Google, Entra) made, kept until they are due for renewal: one request in flight per
 * credential, whoever waits. While a renewal fails or takes long, the old one serves until it truly ends. One whose end
 * is already past (a wrong clock, somewhere) is used once and not kept.
 */
export class IssuedAuthorizations<T extends object = RegistryAuthorization> {
  readonly #kept = new Map<string, Issued<T>>();
  readonly #failed = new Map<string, Failed>();
  readonly #flights = new SingleFlight<T>();
  readonly #now: () => number;
  readonly #patienceMs: number;

  constructor(now: () => number = Date.now, patienceMs = renewalPatienceMs) {
    this.#now = now;
    this.#patienceMs = patienceMs;
  }

  /**
   * @param key the credential's fingerprint
   * @param issue asks the issuer; bounded in time by itself, as several callers may wait for it
   * @param refresh the registry refused the one that we have
   */
  get(
    key: string,
    rule: KeepRule,
    issue: () => Promise<T>,
    options: { readonly signal?: AbortSignal | undefined; readonly refresh?: boolean | undefined } = {},
  ): Promise<T> {
    const kept = options.refresh === true ? undefined : this.#kept.get(key);
    if (kept !== undefined && this.#now() < kept.renewAtMs) return Promise.resolve(kept.authorization);
    const spare = kept !== undefined && this.#now() < kept.endsAtMs ? kept : undefined;
    const failed = this.#failed.get(key);
    if (failed !== undefined && this.#now() < failed.untilMs) {
      return spare === undefined ? Promise.reject(failed.error) : Promise.resolve(spare.authorization);
    }
    const renewed = this.#flights.run(key, () => this.#renew(key, rule, issue));
    return waitFor(spare === undefined ? renewed : this.#orSpare(renewed, spare), options.signal);
  }

  async #renew(key: string, rule: KeepRule, issue: () => Promise<T>): Promise<T> {
    const atMs = this.#now();
    try {
      const authorization = await issue();
      questions.set(authorization, { atMs, now: this.#now });
      this.#failed.delete(key);
      this.#keep(key, rule, authorization);
      return authorization;
    } catch (error) {
      const kept = this.#kept.get(key);
      const leftMs = (kept?.endsAtMs ?? 0) - this.#now();
      const pauseMs = Math.max(failedForMs, Math.min(failedWithSpareForMs, leftMs));
      put(this.#failed, key, { error, untilMs: this.#now() + pauseMs });
      throw error;
    }
  }

  async #orSpare(renewed: Promise<T>, spare: Issued<T>): Promise<T> {
    const enough = new AbortController();
    const patience = sleep(this.#patienceMs, enough.signal).then(
      () => spare.authorization,
      () => spare.authorization,
    );
    const answered = renewed.catch((error: unknown) => {
      if (this.#now() < spare.endsAtMs) return spare.authorization;
      throw error;
    });
    try {
      return await Promise.race([answered, patience]);
    } finally {
      enough.abort();
    }
  }

  #keep(key: string, rule: KeepRule, authorization: T): void {
    const now = this.#now();
    const { expiresAt } = authorization as { readonly expiresAt?: Date };
    const expiresAtMs = expiresAt?.getTime();
    const endsAtMs = expiresAtMs ?? now + rule.lifeMs;
    const marginMs = Math.min(rule.marginMs, (endsAtMs - now) / 2);
    const renewAtMs = Math.min(now + rule.lifeMs, endsAtMs - marginMs);
    this.#kept.delete(key);
    if (renewAtMs > now) put(this.#kept, key, { authorization, renewAtMs, endsAtMs });
  }
}

/** The newest are kept. */
function put<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  const oldest = map.keys().next();
  if (map.size > entriesMax && !oldest.done) map.delete(oldest.value);
}
