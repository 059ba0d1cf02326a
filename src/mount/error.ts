import { CodedError } from "../std/error.ts";

/**
 * - `source_failed` the registry refused, failed or hung; `cause` is its error
 * - `corrupt_blob` the registry sent bytes that are not the ones that were indexed
 * - `corrupt_index` the index does not fit itself: sizes, counts or digests of its parts differ
 * - `mount_failed` the kernel refused a mount, or a mount died
 * - `unsupported_kernel` neither way of mounting works on this host
 * - `busy` something still uses the mount, or another process owns the state directory
 * - `no_space` the cache's disk is full where that cannot be worked around
 * - `cancelled` the caller's signal fired, or the mount was released meanwhile
 */
export const mountErrorCodes = [
  "source_failed",
  "corrupt_blob",
  "corrupt_index",
  "mount_failed",
  "unsupported_kernel",
  "busy",
  "no_space",
  "cancelled",
] as const;

export type MountErrorCode = (typeof mountErrorCodes)[number];

/** An image that cannot be mounted, or a mount that cannot give a file's bytes. Never holds a URL or a credential. */
export class MountError extends CodedError<MountErrorCode> {
  override readonly name = "MountError";
  /** The layer (`sha256:…`) that it is about, if it is about one. */
  readonly layer: string | undefined;

  constructor(
    code: MountErrorCode,
    message: string,
    options: {
      readonly next?: string | undefined;
      readonly cause?: unknown;
      readonly layer?: string | undefined;
    } = {},
  ) {
    super(code, message, options);
    this.layer = options.layer;
  }
}
