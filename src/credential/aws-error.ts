import { CodedError } from "../std/error.ts";
import { NoAnswerError } from "./aws-client.ts";
import { CredentialError, type CredentialErrorCode } from "./error.ts";

/** What AWS says by the names of its errors ("Common errors" of the AWS API references). */
type Trouble =
  | "no_answer"
  | "expired"
  | "clock"
  | "unknown_key"
  | "wrong_secret"
  | "denied"
  | "throttled"
  | "region_off"
  | "unavailable"
  | "other";

const troubles: Readonly<Record<string, Trouble>> = {
  ExpiredToken: "expired",
  ExpiredTokenException: "expired",
  TokenRefreshRequired: "expired",
  RequestExpired: "clock",
  RequestInTheFuture: "clock",
  RequestTimeTooSkewed: "clock",
  UnrecognizedClientException: "unknown_key",
  InvalidClientTokenId: "unknown_key",
  InvalidAccessKeyId: "unknown_key",
  AuthFailure: "unknown_key",
  MissingAuthenticationToken: "unknown_key",
  MissingAuthenticationTokenException: "unknown_key",
  InvalidSignatureException: "wrong_secret",
  SignatureDoesNotMatch: "wrong_secret",
  IncompleteSignature: "wrong_secret",
  IncompleteSignatureException: "wrong_secret",
  AccessDenied: "denied",
  AccessDeniedException: "denied",
  NotAuthorized: "denied",
  UnauthorizedOperation: "denied",
  Throttling: "throttled",
  ThrottlingException: "throttled",
  ThrottledException: "throttled",
  TooManyRequestsException: "throttled",
  RequestThrottled: "throttled",
  RequestThrottledException: "throttled",
  RequestLimitExceeded: "throttled",
  LimitExceededException: "throttled",
  SlowDown: "throttled",
  RegionDisabledException: "region_off",
  OptInRequired: "region_off",
  InternalFailure: "unavailable",
  ServerException: "unavailable",
  ServiceUnavailable: "unavailable",
  ServiceUnavailableException: "unavailable",
};

/** How a failed call is told. */
export interface AwsAsked {
  /** Host name of the API. */
  readonly host: string;
  /** What there is not, now: `token for 1111.dkr.ecr.eu-west-1.amazonaws.com`. */
  readonly wanted: string;
  /** Whose keys signed, in the plural: `the AWS keys`, `the keys of identity prod`. */
  readonly keys: string;
  /** What to do about keys that are wrong or that have ended. */
  readonly renew: string;
  /** When AWS knows the keys and does not allow the call. */
  readonly denied: (name: string) => CredentialError | Promise<CredentialError>;
}

/** How an identity's keys are told, and what a tenant can do about them. */
export function keysOfIdentity(name: string): Pick<AwsAsked, "keys" | "renew"> {
  return {
    keys: `the keys of identity ${name}`,
    renew: `Tell the operator of this node: AWS does not take the keys of identity ${name}.`,
  };
}

type Told = (asked: AwsAsked) => readonly [code: CredentialErrorCode, what: string, next: string];

const told: Readonly<Record<Exclude<Trouble, "denied">, Told>> = {
  no_answer: ({ host }) => [
    "provider_unreachable",
    `${host} did not answer`,
    `Check that this machine reaches ${host} by HTTPS, then try again.`,
  ],
  expired: ({ keys, renew }) => ["expired", `${keys} have expired`, renew],
  clock: () => [
    "provider_failed",
    "this machine's clock differs from AWS's",
    "Set the clock of this machine by NTP, then try again.",
  ],
  unknown_key: ({ keys, renew }) => ["provider_failed", `AWS does not know ${keys}`, renew],
  wrong_secret: ({ keys, renew }) => ["provider_failed", `AWS refuses the signature of ${keys}`, renew],
  throttled: () => [
    "provider_unreachable",
    "AWS throttles the requests of this account",
    "Try again in some minutes; if it stays so, find who else asks so much.",
  ],
  region_off: ({ host }) => [
    "provider_failed",
    `the region of ${host} is not enabled in the account of the keys`,
    "Enable the region in the account's settings, for STS too.",
  ],
  unavailable: ({ host }) => [
    "provider_unreachable",
    `${host} has a failure of its own`,
    "Try again in some minutes.",
  ],
  other: ({ host }) => [
    "provider_failed",
    `${host} answered otherwise than AWS does`,
    `Check what answers at ${host}, then try again.`,
  ],
};

/**
 * The error for a call of AWS that failed. Neither message nor cause of the SDK's error goes on: they may quote the signed
 * request, session token included. Only the error's name does, and what one of our own errors says of the way there.
 */
export async function awsProblem(error: unknown, asked: AwsAsked): Promise<CredentialError> {
  if (error instanceof CredentialError) return error;
  const { trouble, name } = diagnose(error);
  if (trouble === "denied") return await asked.denied(name);
  const [code, what, next] = told[trouble](asked);
  return new CredentialError(code, `${what}, so there is no ${asked.wanted} (${name})`, { next });
}

function diagnose(error: unknown): { readonly trouble: Trouble; readonly name: string } {
  if (error instanceof NoAnswerError) {
    return { trouble: "no_answer", name: error.cause instanceof CodedError ? error.cause.message : "failed" };
  }
  if ((error as Error | null)?.name === "AbortError") return { trouble: "no_answer", name: "too late" };
  const name = error instanceof Error && /^[A-Za-z]{1,60}$/.test(error.name) ? error.name : "unknown error";
  const known = Object.hasOwn(troubles, name) ? troubles[name] : undefined;
  // A signature of another time than AWS's is called a wrong one; the text alone tells.
  if (known === "wrong_secret" && /Signature (expired|not yet current)/.test((error as Error).message)) {
    return { trouble: "clock", name };
  }
  const status = (error as { $metadata?: { httpStatusCode?: unknown } }).$metadata?.httpStatusCode;
  if (known !== undefined) return { trouble: known, name };
  if (status === 429) return { trouble: "throttled", name };
  return { trouble: typeof status === "number" && status >= 500 ? "unavailable" : "other", name };
}
