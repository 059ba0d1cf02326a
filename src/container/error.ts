import { CodedError } from "../std/error.ts";

export type ContainerErrorCode =
  | "not_found"
  | "image_not_found"
  | "image_not_ready"
  | "bad_spec"
  | "illegal_transition"
  | "conflict"
  | "stale_attempt"
  | "worker_away"
  | "worker_earlier"
  | "name_taken"
  | "not_allowed"
  | "not_running"
  | "still_running"
  | "volume_not_found"
  | "volume_in_use";

/** A container that is not there, or is not where the caller takes it to be. */
export class ContainerError extends CodedError<ContainerErrorCode> {
  override readonly name = "ContainerError";
}
