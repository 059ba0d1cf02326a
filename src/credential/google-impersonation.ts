import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { googleAccessScope } from "./google-key.ts";
import {
  askForJson,
  type IssuedToken,
  type IssuerAnswer,
  type IssuerCall,
  isToken,
  withoutToken,
  wordOf,
} from "./issuer-answer.ts";

const lifeSeconds = 3600;
const emailPattern = /^[a-z0-9][a-z0-9-]{0,62}@[a-z0-9][a-z0-9.-]{0,200}\.gserviceaccount\.com$/;

/** @throws CredentialError `bad_value` */
export function parseServiceAccountEmail(text: string, where = "GCP_SERVICE_ACCOUNT"): string {
  if (emailPattern.test(text)) return text;
  throw new CredentialError("bad_value", `${where} is not the e-mail of a service account`, {
    next: `Set ${where} to NAME@PROJECT.iam.gserviceaccount.com.`,
  });
}

/** Who acts for a service account, and the role that lets it. */
export interface Impersonator {
  readonly principal: string;
  readonly role: "roles/iam.serviceAccountTokenCreator" | "roles/iam.workloadIdentityUser";
}

/**
 * A service account's token, made for somebody who may act for it (`generateAccessToken` of Google's "Service Account
 * Credentials API"), for an hour.
 *
 * @throws CredentialError `provider_failed`, `provider_unreachable`
 */
export async function impersonate(
  email: string,
  token: Redacted<string>,
  by: Impersonator,
  call: IssuerCall,
): Promise<IssuedToken> {
  const answer = await askForJson(call, {
    who: "Google",
    url: `https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/${email}:generateAccessToken`,
    headers: { Authorization: `Bearer ${token.expose()}` },
    json: { scope: [googleAccessScope], lifetime: `${lifeSeconds}s` },
  });
  if (answer.status !== 200) throw refusalOf(email, by, answer);
  const { accessToken, expireTime } = answer.json ?? {};
  if (!isToken(accessToken)) throw withoutToken("Google");
  const endMs = typeof expireTime === "string" ? Date.parse(expireTime) : Number.NaN;
  const latestMs = call.now() + lifeSeconds * 1000;
  return {
    value: new Redacted(accessToken),
    expiresAt: new Date(Number.isNaN(endMs) ? latestMs : Math.min(endMs, latestMs)),
  };
}

function refusalOf(email: string, by: Impersonator, answer: IssuerAnswer): CredentialError {
  const { status, reason } = readError(answer);
  const fail = (message: string, next: string): CredentialError =>
    new CredentialError("provider_failed", `${message} (${reason ?? status})`, { next });
  if (reason === "SERVICE_DISABLED") {
    return fail(
      `the IAM Service Account Credentials API is not enabled where ${by.principal} is`,
      "Enable iamcredentials.googleapis.com in that project.",
    );
  }
  if (reason === "ACCESS_TOKEN_SCOPE_INSUFFICIENT") {
    return fail(
      `the access scopes of this machine do not let it act as ${email}`,
      "Give the machine the scope cloud-platform, or leave the service account out.",
    );
  }
  if (answer.status === 403) {
    return fail(
      `${by.principal} may not act as ${email}, or that does not exist`,
      `Grant ${by.role} on ${email} to ${by.principal}.`,
    );
  }
  if (answer.status === 401) {
    return fail(`Google does not take the token of ${by.principal}`, "It may have expired: give a new one.");
  }
  if (answer.status === 404) {
    return fail(`the service account ${email} does not exist`, "Check its e-mail.");
  }
  if (answer.status === 400) {
    return fail(
      `Google makes no token for ${email}`,
      "Check that the service account is enabled and its e-mail right.",
    );
  }
  return fail(`Google does not let ${by.principal} act as ${email}`, "Check that both accounts are enabled.");
}

/** Google's error model (AIP-193): `status` and the reason in an `ErrorInfo`; the message is not repeated. */
function readError(answer: IssuerAnswer): { status: string; reason: string | undefined } {
  const error = answer.json?.["error"] as { status?: unknown; details?: unknown } | null | undefined;
  const details: unknown[] = Array.isArray(error?.details) ? error.details : [];
  const reasons = details.map((detail) => wordOf((detail as { reason?: unknown } | null)?.reason));
  return {
    status: wordOf(error?.status) ?? String(answer.status),
    reason: reasons.find((reason) => reason !== undefined),
  };
}
