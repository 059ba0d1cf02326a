import { z } from "zod";
import { tokenEndsAtMs } from "../credential/jwt.ts";
import type { RegistryAuthorization } from "../credential/provider.ts";
import { Redacted } from "../std/redacted.ts";
import type { Answer } from "./answer.ts";
import { basicHeader } from "./authorization.ts";
import type { Egress, EgressRequest } from "./egress.ts";
import { RegistryError } from "./error.ts";
import { badCredential, expiredCredential, noPullRight, problemOf, type Subject, saidBy } from "./problem.ts";
import { parseRetryAfter } from "./retry.ts";

/** A token service's request: where, for what. */
export interface TokenRequest {
  readonly realm: URL;
  readonly service: string | undefined;
  readonly scopes: readonly string[];
  /** Whether a refresh token is asked for as well, to use in place of the password from then on. */
  readonly offline?: boolean;
}

export interface BearerToken {
  readonly value: Redacted<string>;
  readonly lifeMs: number;
  readonly refreshToken?: Redacted<string>;
  /** Whether the token service made it; if not, it is what the provider gave. */
  readonly exchanged: boolean;
  /** It is the credential itself, handed back. */
  readonly echoed?: boolean;
  /** When the credential itself was asked with; absent: what it gave before was, a refresh token. */
  readonly provedAtMs?: number;
}

/** Who waits, how long, and whether it is a second try. */
export type ExchangeLimits = Pick<EgressRequest, "signal" | "timeoutMs" | "order">;

const bodySizeBytesMax = 64 * 1024;
const defaultLifeSeconds = 60;
const longestLifeSeconds = 24 * 3600;
const clientId = "oci-node";
/** A user name that is locked is not asked about as often as what passes by itself. */
const lockedRetryMs = 20_000;

const tokenSchema = z.object({
  token: z.string().optional(),
  access_token: z.string().optional(),
  /** Some write the number as text. */
  expires_in: z
    .union([
      z.number(),
      z
        .string()
        .regex(/^\d{1,9}$/)
        .transform(Number),
    ])
    .pipe(z.number().positive())
    .optional()
    .catch(undefined),
  refresh_token: z.string().min(1).optional().catch(undefined),
});

/**
 * Exchanges a credential (or none) for a token of the registry's token service.
 *
 * GET with one `scope` parameter per scope (distribution, "Token Authentication Specification"); a refresh token goes
 * by POST with the scopes joined by spaces ("OAuth2 Token Authentication"), and by GET when POST is not there.
 *
 * @throws RegistryError
 */
export async function exchangeToken(
  egress: Egress,
  request: TokenRequest,
  authorization: RegistryAuthorization,
  subject: Subject,
  now: () => number,
  limits: ExchangeLimits,
): Promise<BearerToken> {
  const how = { egress, request, subject, limits };
  let answer =
    authorization.kind === "refresh" ? await post(how, authorization.token) : await get(how, authorization);
  if (authorization.kind === "refresh" && (answer.status === 404 || answer.status === 405)) {
    answer.discard();
    answer = await get(how, { kind: "basic", username: "<token>", password: authorization.token });
  }
  if (answer.status === 200) {
    // Whoever was not asked for a refresh token sends none that we keep, unless it takes the place of the one sent.
    const renewing = authorization.kind === "refresh" || request.offline === true;
    return parseToken(await answer.bytes(bodySizeBytesMax), subject, now(), renewing);
  }
  throw await refusalOf(answer, request, subject, now());
}

interface How {
  readonly egress: Egress;
  readonly request: TokenRequest;
  readonly subject: Subject;
  readonly limits: ExchangeLimits;
}

function get(
  { egress, request, subject, limits }: How,
  authorization: RegistryAuthorization,
): Promise<Answer> {
  const url = new URL(request.realm);
  if (request.service !== undefined) url.searchParams.set("service", request.service);
  for (const scope of request.scopes) url.searchParams.append("scope", scope);
  url.searchParams.set("client_id", clientId);
  if (request.offline === true) url.searchParams.set("offline_token", "true");
  if (authorization.kind === "basic" && authorization.username !== "<token>") {
    url.searchParams.set("account", authorization.username);
  }
  const headers = authorization.kind === "basic" ? { Authorization: basicHeader(authorization) } : {};
  return egress.send({ method: "GET", url, headers, where: subject.where, ...limits });
}

function post({ egress, request, subject, limits }: How, token: Redacted<string>): Promise<Answer> {
  const form = new URLSearchParams({ grant_type: "refresh_token", client_id: clientId });
  if (request.service !== undefined) form.set("service", request.service);
  if (request.scopes.length > 0) form.set("scope", request.scopes.join(" "));
  form.set("refresh_token", token.expose());
  return egress.send({
    method: "POST",
    url: request.realm,
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
    body: form.toString(),
    where: subject.where,
    ...limits,
  });
}

function parseToken(body: Uint8Array, subject: Subject, nowMs: number, renewing: boolean): BearerToken {
  const parsed = tokenSchema.safeParse(parseJson(body));
  const text = parsed.data?.token || parsed.data?.access_token;
  if (text === undefined || !/^[\x21-\x7e]+$/.test(text)) {
    const { where } = subject;
    throw new RegistryError(
      "protocol",
      `the token service of ${where.registry} answered without a token`,
      where,
      {
        next: "Check what answers at the registry's token service.",
      },
    );
  }
  const value = new Redacted(text);
  const seconds = parsed.data?.expires_in ?? jwtLifeSeconds(value, nowMs) ?? defaultLifeSeconds;
  const refresh = renewing ? parsed.data?.refresh_token : undefined;
  return {
    value,
    lifeMs: Math.min(seconds, longestLifeSeconds) * 1000,
    exchanged: true,
    ...(refresh === undefined ? {} : { refreshToken: new Redacted(refresh) }),
  };
}

/** Azure names no `expires_in`: its tokens are JWTs and say it themselves. */
function jwtLifeSeconds(token: Redacted<string>, nowMs: number): number | undefined {
  const seconds = ((tokenEndsAtMs(token) ?? nowMs) - nowMs) / 1000;
  return seconds > 0 ? seconds : undefined;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString("utf8"));
  } catch {
    return undefined;
  }
}

async function refusalOf(
  answer: Answer,
  request: TokenRequest,
  subject: Subject,
  nowMs: number,
): Promise<RegistryError> {
  const { where } = subject;
  if (answer.status >= 300 && answer.status < 400) {
    answer.discard();
    return new RegistryError(
      "egress_refused",
      `the token service of ${where.registry} redirects, which it must not`,
      where,
      {
        next: `Check the registry's configuration: its token service is on ${request.realm.host}.`,
      },
    );
  }
  // 400 is what OAuth2 says to a bad refresh token (`invalid_grant`), 403 what some say to a bad password.
  if ([400, 401, 403].includes(answer.status)) return await refusedLogin(answer, subject);
  if (answer.status === 429 && subject.withCredential) {
    const retryAfterMs = parseRetryAfter(answer.headers.get("retry-after"), nowMs) ?? lockedRetryMs;
    answer.discard();
    return new RegistryError(
      "rate_limited",
      `the token service of ${where.registry} takes no login for now (429)`,
      where,
      {
        retryAfterMs,
        next: "Wait, then try again: it was asked too often, or the user name is locked after failed logins (about ten minutes).",
      },
    );
  }
  if (answer.status === 404) {
    answer.discard();
    return new RegistryError(
      "protocol",
      `the token service of ${where.registry} does not exist (404)`,
      where,
      {
        next: "Check the registry's configuration.",
      },
    );
  }
  return problemOf(answer, subject, nowMs);
}

/** Amazon ECR Public answers 400 to a password that has ended; a denial is of the scope, or of the login (GHCR). */
async function refusedLogin(answer: Answer, subject: Subject): Promise<RegistryError> {
  const { status } = answer;
  const { code, expired } = await saidBy(answer);
  const { registry } = subject.where;
  if (subject.withCredential && (expired || (status === 400 && registry === "public.ecr.aws"))) {
    return expiredCredential(subject);
  }
  return status === 403 && code === "DENIED" && subject.withCredential
    ? noPullRight(subject)
    : badCredential(subject);
}
