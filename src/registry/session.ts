import { CredentialError } from "../credential/error.ts";
import type { CredentialProvider, RegistryAuthorization } from "../credential/provider.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import { basicHeader } from "./authorization.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Egress } from "./egress.ts";
import { RegistryError } from "./error.ts";
import { badCredential, noPullRight, type Subject } from "./problem.ts";
import { type Clock, withRetry } from "./retry.ts";
import { chooseScheme, type Scheme } from "./scheme.ts";
import { type BearerToken, exchangeToken, type TokenRequest } from "./token.ts";

/** A header to send, and which generation of the session it is of. */
export interface Ticket {
  readonly header: string | undefined;
  readonly generation: number;
  /** Until then a refusal is not for its age. It may have waited for its turn at the host. */
  readonly freshUntilMs: number;
}

/** What a request would carry now, and its end, as far as it has one. */
export interface Carried {
  readonly authorization: RegistryAuthorization;
  readonly endsAtMs: number | undefined;
  /** Whether the registry's token service made it, for this repository. */
  readonly exchanged: boolean;
}

interface KeptToken extends BearerToken {
  readonly madeAtMs: number;
}

interface Refused {
  readonly error: RegistryError | CredentialError;
  readonly untilMs: number;
}

/** After a refusal nobody asks again for so long: failed logins lock accounts (Docker Hub). */
const refusedForMs = 5_000;
/** What was made for a request is not refused for its age until then, whatever life was said. */
const newForMs = 5_000;
/** A credential that has worked may be refused by mistake: the first few times the pause is shorter. */
const doubtedForMs = 900;
const doubtsMax = 5;

export interface SessionOptions {
  readonly provider: CredentialProvider;
  readonly subject: Subject;
  readonly egress: Egress;
  readonly clock: Clock;
}

/**
 * What one credential has agreed with one registry about one repository: the scheme, and the token with its life.
 * Shared by all requests of the process, so that one exchange serves them all.
 *
 * Generations: a request that is refused with a ticket older than the session's present one takes the new ticket; only
 * the first to be refused makes a new one.
 */
export class Session {
  readonly #provider: CredentialProvider;
  readonly #subject: Subject;
  readonly #egress: Egress;
  readonly #clock: Clock;
  readonly #exchanges = new SingleFlight<void>();
  readonly #renewals = new SingleFlight<RegistryAuthorization>();
  #scheme: Scheme = { kind: "unknown" };
  #token: KeptToken | undefined;
  #generation = 0;
  /** The provider's last authorization was refused: the next comes from its issuer. */
  #providerRefused = false;
  #renewedAtMs = Number.NEGATIVE_INFINITY;
  /** Refusals since the credential worked; endless while it never did. */
  #refusals = Number.POSITIVE_INFINITY;
  #refused: Refused | undefined;

  constructor(options: SessionOptions) {
    this.#provider = options.provider;
    this.#subject = options.subject;
    this.#egress = options.egress;
    this.#clock = options.clock;
  }

  /** Whether the registry has said how it wants to be asked. */
  get agreed(): boolean {
    return this.#scheme.kind !== "unknown";
  }

  /** The header for the next request. @throws RegistryError, CredentialError */
  async ticket(signal: AbortSignal): Promise<Ticket> {
    if (this.#refused !== undefined && this.#clock.now() >= this.#refused.untilMs) this.#refused = undefined;
    if (this.#scheme.kind === "bearer") return this.#bearerTicket(this.#scheme.request, signal);
    if (this.#refused !== undefined) throw this.#refused.error;
    const before = this.#generation;
    const authorization = await this.#authorization(signal);
    const freshUntilMs = this.#renewedAtMs + this.#newFor(authorization);
    return { header: this.#directHeader(authorization), generation: before, freshUntilMs };
  }

  /**
   * The registry answered 401. Learns the scheme from the challenge, or renews what is too old; throws when there is
   * nothing left to try.
   */
  async refusedWith401(field: string | null, ticket: Ticket, signal: AbortSignal): Promise<void> {
    if (ticket.generation !== this.#generation) return;
    const challenges = parseChallenges(field);
    if (this.#scheme.kind === "unknown") {
      const authorization = await this.#authorization(signal);
      if (ticket.generation !== this.#generation) return;
      // A bearer token was not guessed: there is no other way to send it.
      const scheme =
        authorization.kind === "bearer"
          ? this.#scheme
          : chooseScheme(challenges, authorization, this.#subject, this.#egress.policy);
      if (scheme === undefined) throw this.#refuse(challenges);
      this.#scheme = scheme;
      const sentSo = ticket.header !== undefined && scheme.kind !== "bearer";
      if (!sentSo) {
        this.#generation += 1;
        return;
      }
    }
    if (this.#isFresh(ticket) || !this.#canRenew) throw this.#refuse(challenges);
    this.renew();
  }

  /**
   * The registry refused without a word on why: 403 is what an expired ECR token gets, and what a leased one may get. Once,
   * when the credential's issuer can make a new one, that is tried. Returns whether to ask again.
   */
  refusedWith403(ticket: Ticket): boolean {
    if (ticket.header === undefined) return false;
    if (ticket.generation !== this.#generation) return true;
    if (this.#isFresh(ticket) || this.#scheme.kind === "bearer" || !this.#provider.renewable) return false;
    this.renew();
    return true;
  }

  /** The registry took a ticket. */
  accepted(): void {
    this.#refusals = 0;
  }

  /** Whatever is kept is not to be used again: what comes next is made anew, once for all who ask. */
  renew(): void {
    this.#token = undefined;
    // A token service says itself when what it is given is too old.
    this.#providerRefused = this.#provider.renewable && this.#scheme.kind !== "bearer";
    this.#renewedAtMs = this.#clock.now();
    this.#generation += 1;
  }

  /**
   * What requests carry, for handing it on; `undefined` as long as the registry has not been asked, or wants nothing.
   *
   * @throws RegistryError, CredentialError
   */
  async carried(signal: AbortSignal): Promise<Carried | undefined> {
    if (this.#scheme.kind === "bearer") {
      await this.ticket(signal);
      const token = this.#token;
      if (token === undefined) return undefined;
      const endsAtMs = token.madeAtMs + token.lifeMs;
      const authorization = { kind: "bearer", token: token.value, expiresAt: new Date(endsAtMs) } as const;
      return { authorization, endsAtMs, exchanged: true };
    }
    const authorization = await this.#authorization(signal);
    if (this.#directHeader(authorization) === undefined) return undefined;
    const endsAtMs = "expiresAt" in authorization ? authorization.expiresAt?.getTime() : undefined;
    return { authorization, endsAtMs, exchanged: false };
  }

  /** Has the issuer make the next authorization before the last has ended. That it fails does no harm before that end. */
  async renewEarly(signal: AbortSignal): Promise<void> {
    if (this.#scheme.kind === "bearer" || !this.#provider.renewable) return;
    await waitFor(
      this.#renewals.run("provider", () => this.#renewal()),
      signal,
    ).catch(() => signal.throwIfAborted());
  }

  /** What goes into requests as the provider gives it; `undefined` when it has to be exchanged or asked for first. */
  #directHeader(authorization: RegistryAuthorization): string | undefined {
    if (authorization.kind === "bearer") return `Bearer ${authorization.token.expose()}`;
    if (authorization.kind !== "basic") return undefined;
    return this.#scheme.kind === "basic" || authorization.preemptive === true
      ? basicHeader(authorization)
      : undefined;
  }

  #isFresh(ticket: Ticket): boolean {
    return this.#clock.now() < ticket.freshUntilMs;
  }

  #newFor(authorization: RegistryAuthorization): number {
    const endsAt = "expiresAt" in authorization ? authorization.expiresAt?.getTime() : undefined;
    const lifeMs = endsAt === undefined ? Number.POSITIVE_INFINITY : endsAt - this.#renewedAtMs;
    return lifeMs > 0 ? Math.min(newForMs, lifeMs / 2) : newForMs;
  }

  /** A new bearer token can always be had; what a provider gives only where an issuer makes it. */
  get #canRenew(): boolean {
    return this.#scheme.kind === "bearer" || this.#provider.renewable;
  }

  async #bearerTicket(request: TokenRequest, signal: AbortSignal): Promise<Ticket> {
    const kept = this.#token;
    const age = kept === undefined ? 0 : this.#clock.now() - kept.madeAtMs;
    if (kept !== undefined && age < kept.lifeMs / 2) return this.#ticketOf(kept, false);
    try {
      if (this.#refused !== undefined) throw this.#refused.error;
      await waitFor(
        this.#exchanges.run("token", () => this.#exchange(request)),
        signal,
      );
    } catch (error) {
      signal.throwIfAborted();
      if (kept === undefined || this.#clock.now() - kept.madeAtMs >= kept.lifeMs) throw error;
      return this.#ticketOf(kept, false);
    }
    const made = this.#token;
    if (made === undefined) return this.#bearerTicket(request, signal);
    return this.#ticketOf(made, true);
  }

  #ticketOf(token: KeptToken, made: boolean): Ticket {
    const freshUntilMs = made
      ? token.madeAtMs + Math.min(token.lifeMs / 2, newForMs)
      : Number.NEGATIVE_INFINITY;
    return { header: `Bearer ${token.value.expose()}`, generation: this.#generation, freshUntilMs };
  }

  /** Shared by all who wait, so it has a time of its own instead of anybody's signal. */
  async #exchange(request: TokenRequest): Promise<void> {
    try {
      const madeAnew = this.#providerRefused;
      const token = await this.#exchangeOnce(request).catch((error: unknown) => {
        const refused = error instanceof RegistryError && error.code === "unauthorized";
        if (!refused || madeAnew || !this.#provider.renewable) throw error;
        // What the issuer gave was refused: it may have ended. One made anew is not refused for its age.
        this.#providerRefused = true;
        return this.#exchangeOnce(request);
      });
      this.#token = { ...token, madeAtMs: this.#clock.now() };
      this.#generation += 1;
    } catch (error) {
      if (error instanceof RegistryError && error.code === "unauthorized") this.#keepRefusal(error);
      throw error;
    }
  }

  #exchangeOnce(request: TokenRequest): Promise<BearerToken> {
    const { policy } = this.#egress;
    const signal = AbortSignal.timeout(policy.totalTimeoutMs);
    const rule = { ...policy, inLine: true };
    return withRetry(rule, this.#clock, signal, async (timeoutMs, againAfterMs) => {
      const authorization = await this.#authorization(signal);
      const { now } = this.#clock;
      const limits = { signal, timeoutMs, order: { againAfterMs } };
      return exchangeToken(this.#egress, request, authorization, this.#subject, now, limits);
    });
  }

  /** Compared before each use: a credential goes to its own registry only. One asks the issuer anew for all who wait. */
  async #authorization(signal: AbortSignal): Promise<RegistryAuthorization> {
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
    try {
      if (!this.#providerRefused) return await this.#provider.authorization(signal);
      return await waitFor(
        this.#renewals.run("provider", () => this.#renewal()),
        signal,
      );
    } catch (error) {
      if (error instanceof CredentialError) this.#keepRefusal(error);
      throw error;
    }
  }

  async #renewal(): Promise<RegistryAuthorization> {
    const limit = AbortSignal.timeout(this.#egress.policy.totalTimeoutMs);
    const renewed = await this.#provider.authorization(limit, { refresh: true });
    this.#providerRefused = false;
    return renewed;
  }

  #refuse(challenges: readonly Challenge[]): RegistryError {
    const insufficient = challenges.some((one) => one.parameters.get("error") === "insufficient_scope");
    const denied = insufficient && this.#subject.withCredential;
    const error = denied ? noPullRight(this.#subject) : badCredential(this.#subject);
    this.#token = undefined;
    this.#keepRefusal(error);
    return error;
  }

  #keepRefusal(error: RegistryError | CredentialError): void {
    this.#refusals += 1;
    const doubted = this.#refusals <= doubtsMax || error.code === "provider_unreachable";
    this.#refused = { error, untilMs: this.#clock.now() + (doubted ? doubtedForMs : refusedForMs) };
  }
}
