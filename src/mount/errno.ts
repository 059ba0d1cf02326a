import { CredentialError } from "../credential/error.ts";
import { IndexError, type IndexErrorCode } from "../index/error.ts";
import { RegistryError, type RegistryErrorCode } from "../registry/error.ts";
import { SecretError } from "../secret/error.ts";
import { errnoOf, messageOf } from "../std/error.ts";
import { MountError, type MountErrorCode } from "./error.ts";

/** What a reader of a file can get instead of its bytes. Few: programs handle few. */
export type ReadErrno = "EIO" | "ENOSPC";

const registryCodes: Readonly<Record<RegistryErrorCode, MountErrorCode>> = {
  unauthorized: "source_failed",
  expired: "source_failed",
  denied: "source_failed",
  not_found: "source_failed",
  no_such_platform: "source_failed",
  rate_limited: "source_failed",
  unreachable: "source_failed",
  tls: "source_failed",
  timeout: "source_failed",
  protocol: "source_failed",
  digest_mismatch: "corrupt_blob",
  range_unsupported: "source_failed",
  egress_refused: "source_failed",
  too_large: "source_failed",
  unsupported_media_type: "source_failed",
  blob_truncated: "corrupt_blob",
};

const indexCodes: Readonly<Record<IndexErrorCode, MountErrorCode>> = {
  bad_tar: "corrupt_blob",
  bad_layer: "corrupt_blob",
  unsupported_compression: "corrupt_index",
  limit_exceeded: "corrupt_index",
  digest_mismatch: "corrupt_blob",
  corrupt_index: "corrupt_index",
  not_found: "corrupt_index",
  child_failed: "corrupt_index",
  cancelled: "cancelled",
  no_space: "no_space",
};

const readErrnos: Readonly<Record<MountErrorCode, ReadErrno>> = {
  source_failed: "EIO",
  corrupt_blob: "EIO",
  corrupt_index: "EIO",
  mount_failed: "EIO",
  unsupported_kernel: "EIO",
  busy: "EIO",
  no_space: "ENOSPC",
  cancelled: "EIO",
};

/** The errno that a waiting reader gets for an error. */
export function readErrno(error: MountError): ReadErrno {
  return readErrnos[error.code];
}

/**
 * Anything thrown below the mount (registry, index, Linux) as a {@link MountError} that says what it was about, with
 * the original as `cause` and its `next` kept.
 * @param doing what failed, as a phrase: `reading layer sha256:…`
 */
export function toMountError(thrown: unknown, doing: string, layer?: string): MountError {
  if (thrown instanceof MountError) return thrown;
  const message = `${doing}: ${messageOf(thrown)}`;
  if (thrown instanceof RegistryError)
    return new MountError(registryCodes[thrown.code], message, { cause: thrown, next: thrown.next, layer });
  if (thrown instanceof IndexError)
    return new MountError(indexCodes[thrown.code], message, { cause: thrown, next: thrown.next, layer });
  if (thrown instanceof CredentialError || thrown instanceof SecretError)
    return new MountError("source_failed", message, { cause: thrown, next: thrown.next, layer });
  const name = (thrown as { name?: unknown } | null)?.name;
  if (name === "AbortError") return new MountError("cancelled", message, { cause: thrown, layer });
  if (name === "TimeoutError") return new MountError("source_failed", message, { cause: thrown, layer });
  const [code, next] = linuxCode(errnoOf(thrown));
  return new MountError(code, message, { cause: thrown, next, layer });
}

function linuxCode(errno: string | undefined): [MountErrorCode, string | undefined] {
  switch (errno) {
    case "ENOSPC":
    case "EDQUOT":
      return ["no_space", "Free space on the disk that holds the cache, or give it another directory."];
    case "DIGEST_MISMATCH":
    case "BAD_LAYER":
    case "TRUNCATED":
      return [
        "corrupt_blob",
        "Check the registry's storage and any proxy before it; the read can be tried again.",
      ];
    case "BAD_SPAN_FILE":
      return ["corrupt_index", "Build the image again."];
    case "EBUSY":
      return ["busy", "End what still uses the mount, then try again."];
    case "EPERM":
    case "EACCES":
      return ["mount_failed", "Mounting needs root; `oci-node doctor` shows what this host allows."];
    case "ENODEV":
    case "ENOSYS":
    case "EOPNOTSUPP":
      return ["unsupported_kernel", "`oci-node doctor` shows what this kernel lacks."];
    default:
      return ["mount_failed", undefined];
  }
}
