import { issuedAgoMs } from "../credential/issued.ts";
import type { CredentialProvider, RegistryAuthorization } from "../credential/provider.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import { endOf } from "./authorization.ts";
import { RegistryError } from "./error.ts";
import { expiredCredential, type Subject } from "./problem.ts";

/** Clocks differ a little: only what ended longer ago is not sent any more. */
const clockSkewMs = 60_000;

/** The provider of a credential, for one registry: compared before each use, renewed once for all who wait. */
export class BoundProvider {
  readonly #provider: CredentialProvider;
  readonly #subject: Subject;
  readonly #now: () => number;
  readonly #totalTimeoutMs: number;
  readonly #renewals = new SingleFlight<RegistryAuthorization>();
  #refused = false;
  #provedAtMs = Number.NEGATIVE_INFINITY;

  constructor(provider: CredentialProvider, subject: Subject, now: () => number, totalTimeoutMs: number) {
    this.#provider = provider;
    this.#subject = subject;
    this.#now = now;
    this.#totalTimeoutMs = totalTimeoutMs;
  }

  get renewable(): boolean {
    return this.#provider.renewable;
  }

  /** The next authorization is made anew. */
  get isRefused(): boolean {
    return this.#refused;
  }

  /** When the credential itself gave what {@link authorization} gave last: its issuer was asked then, or it is that. */
  get provedAtMs(): number {
    return this.#provedAtMs;
  }

  /** The last authorization was refused: the next comes from the issuer, where there is one. */
  refuse(): void {
    this.#refused = this.#provider.renewable;
  }

  /**
   * What to send now.
   *
   * @throws RegistryError `egress_refused` for another registry, `expired` when it says itself that it has ended;
   * CredentialError
   */
  async authorization(signal: AbortSignal): Promise<RegistryAuthorization> {
    const { where } = this.#subject;
    if (this.#provider.registry !== where.registry) {
      throw new RegistryError(
        "egress_refused",
        `the credential is for ${this.#provider.registry}, not for ${where.registry}`,
        where,
        {
          next: `Give a credential for ${where.registry}.`,
        },
      );
    }
    if (this.#refused) return this.#renewed(signal);
    const authorization = await this.#provider.authorization(signal);
    // What is not known to be newer is what was made last.
    const agoMs = this.#provider.renewable ? issuedAgoMs(authorization) : 0;
    if (agoMs !== undefined) this.#provedAtMs = this.#now() - agoMs;
    // What can be renewed is its issuer's to judge.
    const endsAtMs = this.#provider.renewable ? undefined : endOf(authorization);
    if (endsAtMs === undefined || this.#now() < endsAtMs + clockSkewMs) return authorization;
    throw expiredCredential(this.#subject, { endedAtMs: endsAtMs, nowMs: this.#now() });
  }

  /** Has the issuer make the next, whatever there is. @throws CredentialError */
  async renew(signal: AbortSignal): Promise<void> {
    await this.#renewed(signal);
  }

  /** Has the issuer make the next before the last has ended. That it fails does no harm before that end. */
  async renewEarly(signal: AbortSignal): Promise<void> {
    if (this.#provider.renewable) await this.#renewed(signal).catch(() => signal.throwIfAborted());
  }

  /** Several wait for it, so it has a time of its own instead of anybody's signal. */
  #renewed(signal: AbortSignal): Promise<RegistryAuthorization> {
    const renew = async (): Promise<RegistryAuthorization> => {
      const limit = AbortSignal.timeout(this.#totalTimeoutMs);
      const askedAtMs = this.#now();
      const renewed = await this.#provider.authorization(limit, { refresh: true });
      this.#refused = false;
      this.#provedAtMs = askedAtMs;
      return renewed;
    };
    return waitFor(this.#renewals.run("renewal", renew), signal);
  }
}
