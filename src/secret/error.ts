import { CodedError } from "../std/error.ts";

export type SecretErrorCode =
  | "not_found"
  | "exists"
  | "bad_name"
  | "bad_value"
  | "too_large"
  | "undecryptable"
  | "key_file"
  /** The key service does not answer just now. */
  | "key_unreachable"
  /** The key service, or the key's state there, does not let us use it. */
  | "key_refused"
  /** A process lacks a key that it would need. */
  | "key_missing"
  | "conflict"
  /** Its registry or its issuer says no to it. */
  | "refused"
  | "in_use"
  | "replayed"
  | "expired";

/** What went wrong with a secret, a key or a token. Never holds a value, a key or a token. */
export class SecretError extends CodedError<SecretErrorCode> {
  override readonly name = "SecretError";
}
