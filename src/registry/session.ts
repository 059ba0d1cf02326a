import type { CredentialProvider, RegistryAuthorization } from "../credential/provider.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { waitFor } from "../std/wait.ts";
import { basicHeader } from "./authorization.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Egress } from "./egress.ts";
import { RegistryError } from "./error.ts";
import { badCredential, noPullRight, type Subject } from "./problem.ts";
import { checkRealm } from "./realm.ts";
import { type Clock, withRetry } from "./retry.ts";
import { type BearerToken, exchangeToken, type TokenRequest } from "./token.ts";

/** How the registry wants to be asked, as its challenge said. */
type Scheme =
  | { readonly kind: "unknown" }
  | { readonly kind: "basic" }
  | { readonly kind: "bearer"; readonly request: TokenRequest };

/** A header to send, and which generation of the session it is of. */
export interface Ticket {
  readonly header: string | undefined;
  readonly generation: number;
  /** Until then a refusal is not for its age. It may have waited for its turn at the host. */
  readonly freshUntilMs: number;
}

interface KeptToken extends BearerToken {
  readonly madeAtMs: number;
}

/** After a refusal nobody asks again for so long: failed logins lock accounts (Docker Hub). */
const refusedForMs = 5_000;
/** A token made for a request is not refused for its age until then, whatever life was said. */
const newForMs = 5_000;
/** A credential that has worked may be refused by mistake: the first few times the pause is shorter. */
const doubtedForMs = 900;
const doubtsMax = 5;
/** A credential that was renewed so lately is not refused for its age. */
const freshForMs = 60_000;
const pullScope = /^repository:[a-z0-9._/-]{1,255}:pull$/;
const scopesMax = 3;

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
  readonly #flights = new SingleFlight<void>();
  #scheme: Scheme = { kind: "unknown" };
  #token: KeptToken | undefined;
  #generation = 0;
  #renewProvider = false;
  #renewedAtMs = Number.NEGATIVE_INFINITY;
  /** Refusals since the credential worked; endless while it never did. */
  #refusals = Number.POSITIVE_INFINITY;
  #refused: { readonly error: RegistryError; readonly untilMs: number } | undefined;

  constructor(options: SessionOptions) {
    this.#provider = options.provider;
    this.#subject = options.subject;
    this.#egress = options.egress;
    this.#clock = options.clock;
  }

  /** The header for the next request. @throws RegistryError, CredentialError */
  async ticket(signal: AbortSignal): Promise<Ticket> {
    if (this.#refused !== undefined && this.#clock.now() >= this.#refused.untilMs) this.#refused = undefined;
    if (this.#scheme.kind === "bearer") return this.#bearerTicket(this.#scheme.request, signal);
    if (this.#refused !== undefined) throw this.#refused.error;
    const before = this.#generation;
    const authorization = await this.#authorization(signal);
    const ticket = { generation: before, freshUntilMs: this.#renewedAtMs + freshForMs };
    if (authorization.kind === "bearer")
      return { ...ticket, header: `Bearer ${authorization.token.expose()}` };
    if (this.#scheme.kind === "basic" && authorization.kind === "basic") {
      return { ...ticket, header: basicHeader(authorization) };
    }
    return { ...ticket, header: undefined };
  }

  /**
   * The registry answered 401. Learns the scheme from the challenge, or renews what is too old; throws when there is
   * nothing left to try.
   */
  async refusedWith401(field: string | null, ticket: Ticket, signal: AbortSignal): Promise<void> {
    if (ticket.generation !== this.#generation) return;
    const challenges = parseChallenges(field);
    if (ticket.header === undefined) {
      this.#scheme = await this.#chooseScheme(challenges, signal);
      this.#generation += 1;
      return;
    }
    if (this.#isFresh(ticket) || !(await this.#canRenew(signal))) throw this.#refuse(challenges);
    this.#renew();
  }

  /**
   * The registry answered 403 without a word on why. An expired ECR token looks so: once, when the credential's issuer
   * can make a new one, that is tried. Returns whether to ask again.
   */
  async refusedWith403(ticket: Ticket, signal: AbortSignal): Promise<boolean> {
    if (ticket.header === undefined || this.#isFresh(ticket)) return false;
    if (ticket.generation !== this.#generation) return true;
    if (this.#scheme.kind !== "basic" || !(await this.#canRenew(signal))) return false;
    this.#renew();
    return true;
  }

  /** The registry took a ticket. */
  accepted(): void {
    this.#refusals = 0;
  }

  #isFresh(ticket: Ticket): boolean {
    return this.#clock.now() < ticket.freshUntilMs;
  }

  #renew(): void {
    this.#token = undefined;
    this.#renewProvider = true;
    this.#renewedAtMs = this.#clock.now();
    this.#generation += 1;
  }

  /** A new bearer token can always be had; a password only where an issuer makes it and says when it ends. */
  async #canRenew(signal: AbortSignal): Promise<boolean> {
    if (this.#scheme.kind === "bearer") return true;
    const authorization = await this.#provider.authorization(signal);
    return authorization.kind === "basic" && authorization.expiresAt !== undefined;
  }

  async #chooseScheme(challenges: readonly Challenge[], signal: AbortSignal): Promise<Scheme> {
    const authorization = await this.#authorization(signal);
    const basic = challenges.some((challenge) => challenge.scheme === "basic");
    const bearer = challenges.find(
      (challenge) => challenge.scheme === "bearer" && challenge.parameters.has("realm"),
    );
    if (bearer !== undefined) {
      try {
        return { kind: "bearer", request: this.#tokenRequest(bearer, authorization) };
      } catch (error) {
        if (!basic || authorization.kind !== "basic") throw error;
      }
    }
    if (basic && authorization.kind === "basic") return { kind: "basic" };
    throw this.#refuse(challenges);
  }

  #tokenRequest(challenge: Challenge, authorization: RegistryAuthorization): TokenRequest {
    const { where } = this.#subject;
    const carriesCredential = authorization.kind !== "anonymous";
    const realm = checkRealm(
      challenge.parameters.get("realm") ?? "",
      where,
      this.#egress.policy,
      carriesCredential,
    );
    const needed = `repository:${where.repository}:pull`;
    // What was challenged comes first: some token services read one scope only. More than pulling is never asked for.
    const challenged = (challenge.parameters.get("scope") ?? "")
      .split(" ")
      .filter((scope) => pullScope.test(scope));
    const scopes = [...new Set([...challenged.slice(0, scopesMax), needed])];
    return { realm, service: challenge.parameters.get("service"), scopes };
  }

  async #bearerTicket(request: TokenRequest, signal: AbortSignal): Promise<Ticket> {
    const kept = this.#token;
    const age = kept === undefined ? 0 : this.#clock.now() - kept.madeAtMs;
    if (kept !== undefined && age < kept.lifeMs / 2) return this.#ticketOf(kept, false);
    try {
      if (this.#refused !== undefined) throw this.#refused.error;
      await waitFor(
        this.#flights.run("token", () => this.#exchange(request)),
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
    const { policy } = this.#egress;
    const signal = AbortSignal.timeout(policy.totalTimeoutMs);
    try {
      const rule = { ...policy, inLine: true };
      const token = await withRetry(rule, this.#clock, signal, async (timeoutMs, againAfterMs) => {
        const authorization = await this.#authorization(signal);
        const { now } = this.#clock;
        const limits = { signal, timeoutMs, order: { againAfterMs } };
        return exchangeToken(this.#egress, request, authorization, this.#subject, now, limits);
      });
      this.#token = { ...token, madeAtMs: this.#clock.now() };
      this.#generation += 1;
    } catch (error) {
      if (error instanceof RegistryError && error.code === "unauthorized") this.#keepRefusal(error);
      throw error;
    }
  }

  /** Compared before each use: a credential goes to its own registry only. */
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
    const refresh = this.#renewProvider;
    this.#renewProvider = false;
    return this.#provider.authorization(signal, { refresh });
  }

  #refuse(challenges: readonly Challenge[]): RegistryError {
    const insufficient = challenges.some((one) => one.parameters.get("error") === "insufficient_scope");
    const denied = insufficient && this.#subject.withCredential;
    const error = denied ? noPullRight(this.#subject) : badCredential(this.#subject);
    this.#token = undefined;
    this.#keepRefusal(error);
    return error;
  }

  #keepRefusal(error: RegistryError): void {
    this.#refusals += 1;
    const pauseMs = this.#refusals <= doubtsMax ? doubtedForMs : refusedForMs;
    this.#refused = { error, untilMs: this.#clock.now() + pauseMs };
  }
}
