import { z } from "zod";
import type { RegistryAuthorization } from "../credential/provider.ts";
import { Redacted } from "../std/redacted.ts";
import type { Answer } from "./answer.ts";
import { basicHeader } from "./authorization.ts";
import type { Egress, EgressRequest } from "./egress.ts";
import { RegistryError } from "./error.ts";
import { jwtEndsAt } from "./jwt.ts";
import { badCredential, problemOf, type Subject } from "./problem.ts";

/** A token service's request: where, for what. */
export interface TokenRequest {
  readonly realm: URL;
  readonly service: string | undefined;
  readonly scopes: readonly string[];
}

export interface BearerToken {
  readonly value: Redacted<string>;
  readonly lifeMs: number;
}

/** Who waits, how long, and whether it is a second try. */
export type ExchangeLimits = Pick<EgressRequest, "signal" | "timeoutMs" | "order">;

const bodySizeBytesMax = 64 * 1024;
const defaultLifeSeconds = 60;
const longestLifeSeconds = 24 * 3600;
const clientId = "oci-node";

const tokenSchema = z.object({
  token: z.string().optional(),
  access_token: z.string().optional(),
  expires_in: z.number().positive().optional().catch(undefined),
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
  if (answer.status === 200) return parseToken(await answer.bytes(bodySizeBytesMax), subject, now());
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

function parseToken(body: Uint8Array, subject: Subject, nowMs: number): BearerToken {
  const parsed = tokenSchema.safeParse(parseJson(body));
  const value = parsed.data?.token || parsed.data?.access_token;
  if (value === undefined || !/^[\x21-\x7e]+$/.test(value)) {
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
  const seconds = parsed.data?.expires_in ?? jwtLifeSeconds(value, nowMs) ?? defaultLifeSeconds;
  return { value: new Redacted(value), lifeMs: Math.min(seconds, longestLifeSeconds) * 1000 };
}

/** Azure names no `expires_in`: its tokens are JWTs and say it themselves. */
function jwtLifeSeconds(token: string, nowMs: number): number | undefined {
  const seconds = ((jwtEndsAt(token) ?? nowMs) - nowMs) / 1000;
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
  if ([400, 401, 403].includes(answer.status)) {
    answer.discard();
    return badCredential(subject);
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
