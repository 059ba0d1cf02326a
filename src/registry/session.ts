import { CredentialError } from "../credential/error.ts";
import type { CredentialProvider, RegistryAuthorization } from "../credential/provider.ts";
import { registryApiHost } from "../reference/reference.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import { basicHeader } from "./authorization.ts";
import { BoundProvider } from "./bound-provider.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Egress } from "./egress.ts";
import { isRefusal, RegistryError } from "./error.ts";
import { Exchanger, type ExchangerOptions } from "./exchange.ts";
import { type FailedLogins, type Login, loginOf } from "./failed-logins.ts";
import { grantedLess } from "./grant.ts";
import { badCredential, noPullRight, type Subject } from "./problem.ts";
import { LastRefusal } from "./refused.ts";
import type { Clock } from "./retry.ts";
import { chooseScheme, type Scheme } from "./scheme.ts";
import type { BearerToken, TokenRequest } from "./token.ts";

/** A header to send, and which generation of the session it is of. */
export interface Ticket {
  readonly header: string | undefined;
  readonly generation: number;
  /** Until then a refusal is not for its age. It may have waited for its turn at the host. */
  readonly freshUntilMs: number;
  /** The user name and the password that the header holds. */
  readonly login?: Login | undefined;
}

/** What a request would carry now, and its end, as far as it has one. */
export interface Carried {
  readonly authorization: RegistryAuthorization;
  readonly endsAtMs: number | undefined;
  /** Whether the registry's token service made it, for this repository. */
  readonly exchanged: boolean;
  /** The token service handed the credential back as it was. */
  readonly echoed?: boolean | undefined;
}

interface KeptToken extends BearerToken {
  readonly madeAtMs: number;
}

/** What was made for a request is not refused for its age until then, whatever life was said. */
export const newForMs = 5_000;

export interface SessionOptions {
  readonly provider: CredentialProvider;
  readonly subject: Subject;
  readonly egress: Egress;
  readonly clock: Clock;
  readonly failedLogins: FailedLogins;
}

/**
 * What one credential has agreed with one registry about one repository: the scheme, and the token with its life.
 * Shared by all requests of the process, so that one exchange serves them all.
 *
 * Generations: a request that is refused with a ticket older than the session's present one takes the new ticket; only
 * the first to be refused makes a new one.
 */
export class Session {
  readonly #provider: BoundProvider;
  readonly #subject: Subject;
  readonly #egress: Egress;
  readonly #clock: Clock;
  readonly #failedLogins: FailedLogins;
  readonly #exchanging: ExchangerOptions;
  readonly #exchanger: Exchanger;
  readonly #exchanges = new SingleFlight<void>();
  #scheme: Scheme = { kind: "unknown" };
  #token: KeptToken | undefined;
  /** The token service gave a token since the registry named it. */
  #realmWorked = false;
  #generation = 0;
  #renewedAtMs = Number.NEGATIVE_INFINITY;
  #tokenProvedAtMs = Number.NEGATIVE_INFINITY;
  readonly #refusal: LastRefusal;

  constructor(options: SessionOptions) {
    const { subject, egress, clock, failedLogins } = options;
    this.#subject = subject;
    this.#egress = egress;
    this.#clock = clock;
    this.#refusal = new LastRefusal(clock.now);
    this.#failedLogins = failedLogins;
    this.#provider = new BoundProvider(options.provider, subject, clock.now, egress.policy.totalTimeoutMs);
    this.#exchanging = { provider: this.#provider, subject, egress, clock, failedLogins };
    this.#exchanger = new Exchanger(this.#exchanging);
  }

  /** Whether the registry has said how it wants to be asked. */
  get agreed(): boolean {
    return this.#scheme.kind !== "unknown";
  }

  /**
   * When what requests carry was last got with the credential itself: not with what that gave before, which may outlive it.
   */
  get provedAtMs(): number {
    return this.#scheme.kind === "bearer" ? this.#tokenProvedAtMs : this.#provider.provedAtMs;
  }

  /** The header for the next request. @throws RegistryError, CredentialError */
  async ticket(signal: AbortSignal): Promise<Ticket> {
    if (this.#scheme.kind === "bearer") return this.#bearerTicket(this.#scheme.request, signal);
    if (this.#refusal.error !== undefined) throw this.#refusal.error;
    const generation = this.#generation;
    const authorization = await this.#authorization(signal);
    const header = this.#directHeader(authorization);
    const freshUntilMs = this.#renewedAtMs + this.#newFor(authorization);
    const { where } = this.#subject;
    const login = header === undefined ? undefined : loginOf(registryApiHost(where.registry), authorization);
    if (login !== undefined) this.#failedLogins.check(login, where, this.#clock.now());
    return { header, generation, freshUntilMs, login };
  }

  /**
   * The registry answered 401. Learns the scheme from the challenge, or renews what is too old; throws when there is
   * nothing left to try.
   */
  async refusedWith401(field: string | null, ticket: Ticket, signal: AbortSignal): Promise<void> {
    if (ticket.generation !== this.#generation) return;
    const challenges = parseChallenges(field);
    if (await this.#learns(challenges, ticket, signal)) return;
    const renewable = this.#scheme.kind === "bearer" || this.#provider.renewable;
    if (this.#isFresh(ticket) || !renewable) throw this.#refuse(challenges, ticket);
    if (this.#scheme.kind === "bearer") {
      const moved = await this.#movedTo(this.#scheme.request, challenges, signal);
      if (ticket.generation !== this.#generation) return;
      if (moved !== undefined) this.#scheme = moved;
    }
    this.renew();
  }

  /**
   * Takes the scheme from the challenges, where none is known yet or the provider gives something of another kind now.
   * Returns whether to ask again with what was learnt.
   */
  async #learns(challenges: readonly Challenge[], ticket: Ticket, signal: AbortSignal): Promise<boolean> {
    if (this.#scheme.kind !== "unknown" && ticket.header !== undefined) return false;
    const authorization = await this.#authorization(signal);
    if (ticket.generation !== this.#generation) return true;
    // A bearer token was not guessed: there is no other way to send it.
    if (authorization.kind === "bearer") return false;
    const scheme = chooseScheme(challenges, authorization, this.#subject, this.#egress.policy);
    if (scheme === undefined) throw this.#refuse(challenges, ticket);
    this.#scheme = scheme;
    if (ticket.header !== undefined && scheme.kind !== "bearer") return false;
    this.#token = undefined;
    this.#generation += 1;
    return true;
  }

  /**
   * The registry refused without a word on why: an expired ECR token gets 403, one of ECR Public 400, and a leased token
   * either. Once, when the credential's issuer can make a new one, that is tried. Returns whether to ask again.
   */
  refusedSilently(status: 400 | 403, ticket: Ticket): boolean {
    if (ticket.header === undefined) return false;
    const { registry } = this.#subject.where;
    if (status === 400 && registry !== "public.ecr.aws") return false;
    if (ticket.generation !== this.#generation) return true;
    const exchanged = this.#scheme.kind === "bearer" && this.#token?.exchanged !== false;
    const renewedNow = exchanged && this.#clock.now() < this.#renewedAtMs + newForMs;
    if (this.#isFresh(ticket) || renewedNow) return false;
    if (exchanged ? status === 403 : !this.#provider.renewable) return false;
    this.renew();
    return true;
  }

  /** The registry took a ticket, whatever it then said. */
  accepted(ticket: Ticket, status: number): void {
    this.#refusal.worked();
    const believed = status < 400 || status === 404 || status === 416;
    if (ticket.login !== undefined && believed) this.#failedLogins.worked(ticket.login);
  }

  /** Whatever is kept is not to be used again: what comes next is made anew, once for all who ask. */
  renew(): void {
    // A token service says itself when what it is given is too old.
    if (this.#scheme.kind !== "bearer" || this.#token?.exchanged === false) this.#provider.refuse();
    this.#token = undefined;
    this.#exchanger.doubt();
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
      return { authorization, endsAtMs, exchanged: token.exchanged, echoed: token.echoed };
    }
    const authorization = await this.#authorization(signal);
    if (this.#directHeader(authorization) === undefined) return undefined;
    const endsAtMs = "expiresAt" in authorization ? authorization.expiresAt?.getTime() : undefined;
    return { authorization, endsAtMs, exchanged: false };
  }

  /**
   * A token with other scopes than pulling needs, got with the credential itself; it is the caller's, and nobody else gets it.
   * `undefined`: the registry has no token service.
   *
   * @throws RegistryError, CredentialError
   */
  async tokenFor(scopes: readonly string[], signal: AbortSignal): Promise<BearerToken | undefined> {
    if (this.#scheme.kind !== "bearer") return undefined;
    const exchanger = new Exchanger(this.#exchanging);
    return await waitFor(exchanger.token({ ...this.#scheme.request, scopes }), signal);
  }

  /**
   * Makes the next of what requests carry before the last has ended, which serves until then.
   *
   * @throws RegistryError, CredentialError what the token service says; that an issuer fails does no harm before the end
   */
  async renewEarly(signal: AbortSignal): Promise<void> {
    if (this.#scheme.kind !== "bearer") return await this.#provider.renewEarly(signal);
    if (this.#refusal.error !== undefined) throw this.#refusal.error;
    const { request } = this.#scheme;
    const exchanged = this.#exchanges.run("token", () => this.#exchange(request));
    await waitFor(exchanged, signal).catch((error: unknown) => {
      // One that has moved is found by the next who needs a token.
      if (!signal.aborted && isElsewhere(error)) return;
      if (isRefusal(error)) this.#token = undefined;
      throw error;
    });
  }

  /**
   * Sees to it that what requests carry was got with the credential itself, no longer ago than so. What there is stays when
   * nobody can be asked.
   *
   * @param withinMs 0: it is asked in any case
   * @throws RegistryError, CredentialError
   */
  async proveWithin(withinMs: number, signal: AbortSignal): Promise<void> {
    const fromMs = this.#clock.now() - withinMs;
    if (this.#provider.renewable) {
      if (withinMs > 0) await this.#authorization(signal);
      if (this.#provider.provedAtMs <= fromMs) await this.#provider.renew(signal);
    }
    if (this.#scheme.kind !== "bearer" || this.#tokenProvedAtMs > fromMs) return;
    // Who joins an exchange that runs may find that it was made with something else, or too early.
    for (let round = 0; round < 2; round += 1) {
      this.#exchanger.doubt();
      await this.renewEarly(signal);
      if (this.#tokenProvedAtMs >= fromMs) return;
    }
    // The token service is not where it was: the next request finds it.
    this.renew();
  }

  /** What goes into requests as the provider gives it; `undefined` when it has to be exchanged or asked for first. */
  #directHeader(authorization: RegistryAuthorization): string | undefined {
    if (authorization.kind === "bearer") return `Bearer ${authorization.token.expose()}`;
    if (authorization.kind !== "basic") return undefined;
    return this.#scheme.kind === "basic" || authorization.preemptive === true
      ? basicHeader(authorization)
      : undefined;
  }

  /** Token services move (NGC's did, to a host of its own): the newest challenge counts, when it may have the credential. */
  async #movedTo(
    { realm }: TokenRequest,
    challenges: readonly Challenge[],
    signal: AbortSignal,
  ): Promise<Scheme | undefined> {
    const authorization = await this.#authorization(signal);
    try {
      const named = chooseScheme(challenges, authorization, this.#subject, this.#egress.policy);
      return named?.kind === "bearer" && named.request.realm.href !== realm.href ? named : undefined;
    } catch {
      return undefined;
    }
  }

  #isFresh(ticket: Ticket): boolean {
    return this.#clock.now() < ticket.freshUntilMs;
  }

  #newFor(authorization: RegistryAuthorization): number {
    const endsAt = "expiresAt" in authorization ? authorization.expiresAt?.getTime() : undefined;
    const lifeMs = endsAt === undefined ? Number.POSITIVE_INFINITY : endsAt - this.#renewedAtMs;
    return lifeMs > 0 ? Math.min(newForMs, lifeMs / 2) : newForMs;
  }

  async #bearerTicket(request: TokenRequest, signal: AbortSignal): Promise<Ticket> {
    const kept = this.#token;
    const age = kept === undefined ? 0 : this.#clock.now() - kept.madeAtMs;
    if (kept !== undefined && age < kept.lifeMs / 2) return this.#ticketOf(kept, false);
    try {
      if (this.#refusal.error !== undefined) throw this.#refusal.error;
      await waitFor(
        this.#exchanges.run("token", () => this.#exchange(request)),
        signal,
      );
    } catch (error) {
      signal.throwIfAborted();
      if (this.#isGood(kept)) return this.#ticketOf(kept, false);
      // Another who waited has found out already that it has moved.
      if (this.#scheme.kind === "bearer" && this.#scheme.request === request) {
        if (!this.#realmWorked || !isElsewhere(error)) throw error;
        // The registry knows where it is now.
        this.#realmWorked = false;
        this.#scheme = { kind: "unknown" };
        this.#token = undefined;
        this.#generation += 1;
      }
      return await this.ticket(signal);
    }
    const made = this.#token;
    if (made === undefined) return this.#bearerTicket(request, signal);
    return this.#ticketOf(made, true);
  }

  #ticketOf(token: KeptToken, made: boolean): Ticket {
    const newMs = Math.min(token.lifeMs / 2, newForMs);
    const bornAtMs = made ? token.madeAtMs : Number.NEGATIVE_INFINITY;
    const freshUntilMs = newMs + (token.exchanged ? bornAtMs : this.#renewedAtMs);
    return { header: `Bearer ${token.value.expose()}`, generation: this.#generation, freshUntilMs };
  }

  async #exchange(request: TokenRequest): Promise<void> {
    try {
      const token = await this.#exchanger.token(request);
      this.#token = { ...token, madeAtMs: this.#clock.now() };
      this.#tokenProvedAtMs = token.provedAtMs ?? this.#tokenProvedAtMs;
      this.#realmWorked = true;
      this.#generation += 1;
    } catch (error) {
      const limited = error instanceof RegistryError && error.code === "rate_limited";
      if (isRefusal(error) || limited || error instanceof CredentialError) this.#refusal.keep(error);
      throw error;
    }
  }

  #isGood(token: KeptToken | undefined): token is KeptToken {
    return token !== undefined && this.#clock.now() - token.madeAtMs < token.lifeMs;
  }

  async #authorization(signal: AbortSignal): Promise<RegistryAuthorization> {
    try {
      return await this.#provider.authorization(signal);
    } catch (error) {
      if (error instanceof CredentialError) this.#refusal.keep(error);
      throw error;
    }
  }

  #refuse(challenges: readonly Challenge[], { login }: Ticket): RegistryError {
    const { withCredential, where } = this.#subject;
    const token = this.#scheme.kind === "bearer" ? this.#token : undefined;
    const believed = withCredential && grantedLess(challenges, token?.value, where);
    const error = believed ? noPullRight(this.#subject) : badCredential(this.#subject);
    this.#token = undefined;
    // Those that were sent at the same time count as one: what is told is how often it was tried.
    const first = this.#refusal.error === undefined;
    if (login !== undefined && first) this.#failedLogins.refused(login, this.#clock.now());
    this.#refusal.keep(error);
    return error;
  }
}

/** What answers where the token service was is none any more, or points to another place. */
function isElsewhere(error: unknown): boolean {
  return error instanceof RegistryError && ["protocol", "egress_refused"].includes(error.code);
}
