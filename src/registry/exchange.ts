import type { RegistryAuthorization } from "../credential/provider.ts";
import { CodedError } from "../std/error.ts";
import type { Redacted } from "../std/redacted.ts";
import type { BoundProvider } from "./bound-provider.ts";
import type { Egress } from "./egress.ts";
import { isRefusal, RegistryError } from "./error.ts";
import { type FailedLogins, loginOf } from "./failed-logins.ts";
import { echoes } from "./grant.ts";
import { badCredential, type Subject, unlessUnchanged } from "./problem.ts";
import { checkRealm } from "./realm.ts";
import { type Clock, withRetry } from "./retry.ts";
import { type BearerToken, exchangeToken, type TokenRequest } from "./token.ts";

const unsaidLifeMs = 60_000;

export interface ExchangerOptions {
  readonly provider: BoundProvider;
  readonly subject: Subject;
  readonly egress: Egress;
  readonly clock: Clock;
  readonly failedLogins: FailedLogins;
}

/**
 * Gets tokens from a token service, again and again for one repository. From the second time on it asks for a refresh token
 * as well, and uses that from then on: the password is not sent again as long as the service takes it. Not the first time:
 * most builds need one token, and would leave a refresh token behind that nobody uses.
 */
export class Exchanger {
  readonly #options: ExchangerOptions;
  #count = 0;
  /** Whether refresh tokens are worth asking for: not where one was given and did not work. */
  #offline = true;
  #refreshWorked = false;
  #refreshToken: { readonly token: Redacted<string>; readonly realm: string } | undefined;

  constructor(options: ExchangerOptions) {
    this.#options = options;
  }

  /** @throws RegistryError, CredentialError */
  async token(request: TokenRequest): Promise<BearerToken> {
    const kept = this.#refreshToken;
    if (kept !== undefined && kept.realm === request.realm.href) {
      try {
        const token = await this.#send(request, { kind: "refresh", token: kept.token });
        this.#refreshWorked = true;
        return this.#made(request, token);
      } catch (error) {
        // Revoked, expired, or good for nothing: the credential decides. What passes is the caller's to see.
        if (!isNo(error)) throw error;
        this.#refreshToken = undefined;
        if (!this.#refreshWorked) this.#offline = false;
      }
    }
    const { provider } = this.#options;
    const madeAnew = provider.isRefused;
    try {
      return this.#made(request, await this.#sendCredential(request));
    } catch (error) {
      if (!isNo(error) || error.code === "denied" || madeAnew || !provider.renewable) throw error;
      // What the issuer gave has ended, it may be. One that is made anew is not refused for its age.
      provider.refuse();
      return this.#made(request, await this.#sendCredential(request).catch(unlessUnchanged(error)));
    }
  }

  async #sendCredential(request: TokenRequest): Promise<BearerToken> {
    const { provider, clock } = this.#options;
    const askedAtMs = clock.now();
    const token = await this.#send(request, undefined);
    return { ...token, provedAtMs: Math.min(askedAtMs, provider.provedAtMs) };
  }

  /** A token was refused before its end: the next is made with the credential itself, which may have been revoked. */
  doubt(): void {
    this.#refreshToken = undefined;
  }

  #made(request: TokenRequest, token: BearerToken): BearerToken {
    this.#count += 1;
    if (token.refreshToken !== undefined) {
      this.#refreshToken = { token: token.refreshToken, realm: request.realm.href };
    }
    return token;
  }

  /** @param instead sent in place of what the provider gives */
  async #send(request: TokenRequest, instead: RegistryAuthorization | undefined): Promise<BearerToken> {
    const { provider, egress, clock, subject } = this.#options;
    const { totalTimeoutMs } = egress.policy;
    const signal = AbortSignal.timeout(totalTimeoutMs);
    const rule = { ...egress.policy, inLine: true };
    try {
      return await withRetry(rule, clock, signal, async (timeoutMs, againAfterMs) => {
        const authorization = instead ?? (await provider.authorization(signal));
        if (authorization.kind === "bearer") return asItIs(authorization, clock.now());
        const limits = { signal, timeoutMs, order: { brief: true, againAfterMs } };
        return await this.#login(request, authorization, limits);
      });
    } catch (error) {
      if (!signal.aborted || error instanceof CodedError) throw error;
      const { where } = subject;
      const message = `the token service of ${where.registry} gave no token within ${totalTimeoutMs / 1000} s`;
      throw new RegistryError("timeout", message, where, { next: "Check the registry, then try again." });
    }
  }

  async #login(
    request: TokenRequest,
    authorization: RegistryAuthorization,
    limits: Parameters<typeof exchangeToken>[5],
  ): Promise<BearerToken> {
    const { egress, subject, clock, failedLogins, provider } = this.#options;
    // Chosen when there was no credential, it may be anybody's: a lease may give one since.
    checkRealm(request.realm.href, subject.where, egress.policy, authorization.kind !== "anonymous");
    const ask = async (asked: TokenRequest): Promise<BearerToken> => {
      const token = await exchangeToken(egress, asked, authorization, subject, clock.now, limits);
      return { ...token, echoed: echoes(token.value, authorization) };
    };
    const login = loginOf(request.realm.host, authorization);
    if (login === undefined) return await ask(request);
    const offline = this.#offline && this.#count > 0 && !provider.renewable;
    const attempt = (asked: TokenRequest): Promise<BearerToken> =>
      failedLogins.attempt(login, subject.where, clock.now, limits.signal, () => ask(asked));
    return await attempt({ ...request, offline }).catch(async (error: unknown) => {
      if (!(error instanceof RegistryError) || error.code !== "denied") throw error;
      // Some deny a bad password as they deny a repository (GHCR): a login that asks for nothing tells them apart.
      const known = await attempt({ ...request, scopes: [] }).then(
        () => true,
        (refusal: unknown) => {
          if (isNo(refusal) && refusal.code === "denied") failedLogins.refused(login, clock.now());
          return !isNo(refusal);
        },
      );
      throw known ? error : badCredential(subject);
    });
  }
}

/** The token service has said no, or what is no answer of one. */
function isNo(error: unknown): error is RegistryError {
  return isRefusal(error) || (error instanceof RegistryError && error.code === "protocol");
}

/** A provider that gave a password before may give a token now (a lease): there is nothing to exchange. */
function asItIs(
  { token, expiresAt }: Extract<RegistryAuthorization, { kind: "bearer" }>,
  nowMs: number,
): BearerToken {
  const lifeMs = expiresAt === undefined ? unsaidLifeMs : expiresAt.getTime() - nowMs;
  return { value: token, lifeMs: Math.max(lifeMs, unsaidLifeMs), exchanged: false };
}
