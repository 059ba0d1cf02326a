import { CodedError } from "../std/error.ts";

export type CredentialErrorCode =
  | "unknown_key"
  | "missing_key"
  | "incomplete_pair"
  | "bad_value"
  | "registry_mismatch"
  | "provider_failed"
  | "provider_unreachable"
  /** What was refused is all that there is: the refusal itself says more. */
  | "unchanged"
  | "expired"
  | "identity_refused"
  | "release_refused"
  | "no_credentials";

/** A credential that is incomplete, malformed, meant for another registry, or that its issuer does not honour. */
export class CredentialError extends CodedError<CredentialErrorCode> {
  override readonly name = "CredentialError";
}
