import { CodedError } from "../std/error.ts";

export type ClusterErrorCode =
  | "bad_token"
  | "wrong_authority"
  | "bad_request"
  | "not_joined"
  | "revoked"
  | "unreachable"
  | "identity_file";

/** Why a host is not, or no longer, a worker of this cluster. Never holds a token or a key. */
export class ClusterError extends CodedError<ClusterErrorCode> {
  override readonly name = "ClusterError";
}
