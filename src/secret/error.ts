import { CodedError } from "../std/error.ts";

export type SecretErrorCode =
  | "not_found"
  | "exists"
  | "bad_name"
  | "bad_value"
  | "too_large"
  | "undecryptable"
  | "key_file"
  | "in_use"
  | "replayed"
  | "expired";

/** What went wrong with a secret, a key or a token. Never holds a value, a key or a token. */
export class SecretError extends CodedError<SecretErrorCode> {
  override readonly name = "SecretError";
}
