import { createPrivateKey } from "node:crypto";
import { z } from "zod";
import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import {
  askForJson,
  type IssuedToken,
  type IssuerAnswer,
  type IssuerCall,
  readToken,
  wordOf,
} from "./issuer-answer.ts";
import { googleKeyFileKey } from "./key.ts";

/** What an access token of Google is asked for; registries take no narrower one for sure. */
export const googleAccessScope = "https://www.googleapis.com/auth/cloud-platform";

/** The only place that tokens of service accounts' keys are had from; what a key file says of it is not used. */
const tokenUrl = "https://oauth2.googleapis.com/token";
const assertionLifeSeconds = 3600;

const serviceAccountSchema = z.object({
  type: z.literal("service_account"),
  client_email: z.string().regex(/^[\x21-\x7e]{3,255}$/),
  private_key: z.string().min(64).max(8192),
  private_key_id: z.string().max(255).optional(),
  token_uri: z.string().max(255).optional(),
  universe_domain: z.string().max(255).optional(),
});

/** A service account with its key, taken apart. */
export interface GoogleKey {
  readonly email: string;
  readonly keyId: string | undefined;
  readonly pem: Redacted<string>;
}

/**
 * Only the key of a service account of the public cloud: other kinds of Google's JSON name files to read, programs to run
 * or URLs to post to, and another universe is another company's server.
 *
 * @throws CredentialError `bad_value`
 */
export function parseGoogleKey(json: Redacted<string>): GoogleKey {
  const parsed = serviceAccountSchema.safeParse(parseJson(json));
  if (!parsed.success) {
    throw new CredentialError("bad_value", `${googleKeyFileKey} is not the key of a service account`, {
      next: "Use a JSON key of type service_account; for federation give GCP_WORKLOAD_IDENTITY_PROVIDER in its place.",
    });
  }
  const account = parsed.data;
  if (account.universe_domain !== undefined && account.universe_domain !== "googleapis.com") {
    throw new CredentialError("bad_value", `${googleKeyFileKey} names a foreign universe_domain`, {
      next: "Only service accounts of googleapis.com are accepted.",
    });
  }
  if (account.token_uri !== undefined && !isGoogleApi(account.token_uri)) {
    throw new CredentialError("bad_value", `${googleKeyFileKey} names a token_uri that is not Google's`, {
      next: "Use the key file as Google issued it.",
    });
  }
  return { email: account.client_email, keyId: account.private_key_id, pem: rsaKey(account.private_key) };
}

function parseJson(json: Redacted<string>): unknown {
  try {
    return JSON.parse(json.expose());
  } catch {
    return undefined;
  }
}

function isGoogleApi(text: string): boolean {
  const url = URL.parse(text);
  if (url === null) return false;
  const plain = url.protocol === "https:" && url.port === "" && url.username === "" && url.password === "";
  return plain && url.hostname.endsWith(".googleapis.com");
}

function rsaKey(pem: string): Redacted<string> {
  try {
    if (createPrivateKey(pem).asymmetricKeyType === "rsa") return new Redacted(pem);
  } catch {
    // Its message could quote the key.
  }
  throw new CredentialError("bad_value", `the private_key in ${googleKeyFileKey} is not an RSA key`, {
    next: "Use the key file as Google issued it.",
  });
}

/**
 * An access token for a service account's key: google-auth-library signs the assertion and makes the request (RFC 7523;
 * Google, "Using OAuth 2.0 for Server to Server Applications"), which goes our way and no other.
 *
 * @throws CredentialError `provider_failed`, `provider_unreachable`
 */
export async function tokenOfGoogleKey(key: GoogleKey, call: IssuerCall): Promise<IssuedToken> {
  const asked = Promise.withResolvers<IssuerAnswer>();
  const issuedAt = Math.floor(call.now() / 1000);
  // Loaded only here: it takes longer than a start of the executable.
  const { JWT } = await import("google-auth-library");
  const client = new JWT({
    email: key.email,
    key: key.pem.expose(),
    ...(key.keyId === undefined ? {} : { keyId: key.keyId }),
    scopes: [googleAccessScope],
    additionalClaims: { iat: issuedAt, exp: issuedAt + assertionLifeSeconds },
    useAuthRequestParameters: false,
    transporter: { request: (request: TokenRequest) => passOn(call, request, asked) } as never,
  });
  // What the library makes of the answer or of a failure is not used: its errors carry the request, assertion included.
  await client.authorize().catch((error: unknown) => asked.reject(error));
  const answer = await asked.promise.catch((error: unknown) => {
    if (error instanceof CredentialError) throw error;
    throw new CredentialError("provider_failed", `no token could be asked for ${key.email}`, {
      next: "Check the service account's key; make a new one when this stays so.",
    });
  });
  if (answer.status !== 200) throw refusalOf(key.email, answer);
  return readToken(call, "Google", answer);
}

interface TokenRequest {
  readonly data?: unknown;
}

/** The library's request, through our own way to issuers. Its form goes to the one place that tokens come from. */
async function passOn(
  call: IssuerCall,
  { data }: TokenRequest,
  asked: PromiseWithResolvers<IssuerAnswer>,
): Promise<{ readonly data: unknown }> {
  try {
    const form = data instanceof URLSearchParams ? Object.fromEntries(data) : {};
    const answer = await askForJson(call, { who: "Google", url: tokenUrl, form });
    asked.resolve(answer);
    return { data: answer.json ?? {} };
  } catch (error) {
    asked.reject(error);
    throw error;
  }
}

/** By what Google's description begins with or holds, none of which is repeated. */
const refusals: readonly (readonly [said: RegExp, what: (email: string) => string, next: string])[] = [
  [
    /signature/i,
    (email) => `Google does not know this key of ${email}: it was deleted or disabled`,
    "Make a new key for the service account and store that.",
  ],
  [
    /disabled/i,
    (email) => `the service account ${email} is disabled`,
    "Enable it (gcloud iam service-accounts enable), or use another one.",
  ],
  [
    /not found|deleted/i,
    (email) => `the service account ${email} does not exist`,
    "Check whether it was deleted; make a new one with a new key.",
  ],
  [
    /timeframe|\biat\b/i,
    (email) => `Google refuses the time at which ${email} was signed for`,
    "Set this machine's clock right (it is minutes wrong).",
  ],
];

function refusalOf(email: string, answer: IssuerAnswer): CredentialError {
  const { error, error_description: description } = answer.json ?? {};
  const known = refusals.find(([said]) => typeof description === "string" && said.test(description));
  const word = wordOf(error) ?? String(answer.status);
  const message = known?.[1](email) ?? `Google gives ${email} no token`;
  return new CredentialError("provider_failed", `${message} (${word})`, {
    next:
      known?.[2] ??
      "Check that the service account and its key still exist and that the clock is right; then make a new key.",
  });
}
