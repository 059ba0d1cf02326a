import { CodedError } from "../std/error.ts";

/** `not_writable`: nothing was done, as it could not be recorded. `not_written`: it was done, and its record is missing. */
export type AuditErrorCode = "not_writable" | "not_written" | "bad_filter" | "not_allowed";

/** The audit cannot be written, or asked as somebody asks. */
export class AuditError extends CodedError<AuditErrorCode> {
  override readonly name = "AuditError";
}
