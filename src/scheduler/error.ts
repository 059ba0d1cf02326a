import { CodedError } from "../std/error.ts";

export type SchedulerErrorCode =
  | "unknown_worker"
  | "stale_boot"
  | "not_its_container"
  | "no_code"
  | "worker_unreachable"
  | "network_not_allowed";

/** A worker that is not (or no longer) what it says, or a request that no worker may get. */
export class SchedulerError extends CodedError<SchedulerErrorCode> {
  override readonly name = "SchedulerError";
}
