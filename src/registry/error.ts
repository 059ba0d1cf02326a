import { CodedError } from "../std/error.ts";

export type RegistryErrorCode =
  | "unauthorized"
  | "expired"
  | "denied"
  | "not_found"
  | "no_such_platform"
  | "rate_limited"
  | "unreachable"
  | "tls"
  | "timeout"
  | "protocol"
  | "digest_mismatch"
  | "range_unsupported"
  | "egress_refused"
  | "too_large"
  | "unsupported_media_type"
  | "blob_truncated";

/** Which registry and repository an error is about. */
export interface Where {
  readonly registry: string;
  readonly repository: string;
}

export interface RegistryErrorOptions {
  readonly next?: string | undefined;
  /** After which time the registry wants to be asked again, if it said so. */
  readonly retryAfterMs?: number | undefined;
}

/**
 * A registry that refused, failed, or answered something that it must not. Never holds a URL (it may be presigned), a
 * token or a header, and no `cause`: the platform's errors carry all of these.
 */
export class RegistryError extends CodedError<RegistryErrorCode> {
  override readonly name = "RegistryError";
  readonly registry: string;
  readonly repository: string;
  readonly retryAfterMs: number | undefined;

  constructor(code: RegistryErrorCode, message: string, where: Where, options: RegistryErrorOptions = {}) {
    super(code, message, { next: options.next });
    this.registry = where.registry;
    this.repository = where.repository;
    this.retryAfterMs = options.retryAfterMs;
  }
}

const passing: ReadonlySet<string> = new Set<RegistryErrorCode>(["unreachable", "timeout", "rate_limited"]);

const refusals: ReadonlySet<string> = new Set<RegistryErrorCode>(["unauthorized", "expired", "denied"]);

/** Whether the credential is at fault: another one may be better. */
export function isRefusal(error: unknown): error is RegistryError {
  return error instanceof RegistryError && refusals.has(error.code);
}

/** Whether trying again later can help. */
export function isPassing(error: unknown): error is RegistryError {
  return error instanceof RegistryError && passing.has(error.code);
}
