import { CodedError } from "../std/error.ts";

export type EndpointErrorCode =
  | "not_found"
  | "bad_spec"
  | "code_missing"
  | "code_too_large"
  | "code_refused"
  | "conflict"
  | "busy";

/** An endpoint or its code that cannot be had as asked. */
export class EndpointError extends CodedError<EndpointErrorCode> {
  override readonly name = "EndpointError";
}
