import { CodedError } from "../std/error.ts";

export type RegistryErrorCode =
  | "unauthorized"
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

/** A registry that refused, failed, or answered something that it must not. Never holds a URL, a token or a header. */
export class RegistryError extends CodedError<RegistryErrorCode> {
  readonly registry: string;
  readonly repository: string;

  constructor(
    code: RegistryErrorCode,
    message: string,
    where: { readonly registry: string; readonly repository: string },
    options: { readonly next?: string | undefined; readonly cause?: unknown } = {},
  ) {
    super(code, message, options);
    this.registry = where.registry;
    this.repository = where.repository;
  }
}
