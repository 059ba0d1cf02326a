import { CodedError } from "../std/error.ts";

export type HealthErrorCode = "webhook_not_found" | "too_many_webhooks";

/** What went wrong with the telling of how secrets fare. Never holds an address, a value or a token. */
export class HealthError extends CodedError<HealthErrorCode> {
  override readonly name = "HealthError";
}
