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

/** Of a worker that was let in once, and is not to come back. */
export function revokedError(workerId: string, name: string): ClusterError {
  return new ClusterError("revoked", `worker ${workerId} (${name}) was revoked`, {
    next: "If that host shall work again: stop its worker, remove the folder worker/identity in its data folder, and start it with a new join token.",
  });
}
