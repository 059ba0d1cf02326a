import type { Descriptor } from "./descriptor.ts";
import { RegistryError, type Where } from "./error.ts";

/** A blob, short, as errors name it. */
export function blobName({ registry, repository }: Where, blob: Descriptor): string {
  return `${registry}/${repository}@${blob.digest.slice(0, 19)}…`;
}

export function noRanges(where: Where, blob: Descriptor): RegistryError {
  const message = `${where.registry} sends ${blobName(where, blob)} only as a whole`;
  return new RegistryError("range_unsupported", message, where, {
    next: "The layer is read as one stream instead.",
  });
}

/** The answer ended early. */
export function truncated(where: Where, blob: Descriptor): RegistryError {
  const message = `${blobName(where, blob)} ended before its ${blob.size} bytes`;
  return new RegistryError("blob_truncated", message, where, {
    next: "Try again; if it stays so, the registry's copy is damaged: push the image again.",
  });
}

/** The registry itself says that there is no such range. */
export function tooShort(where: Where, blob: Descriptor): RegistryError {
  const message = `${blobName(where, blob)} is shorter than its ${blob.size} bytes`;
  return new RegistryError("blob_truncated", message, where, {
    next: "The registry's copy is damaged: push the image again.",
  });
}

export function tooLong(where: Where, blob: Descriptor): RegistryError {
  const message = `${blobName(where, blob)} has more than its ${blob.size} bytes`;
  return new RegistryError("digest_mismatch", message, where, {
    next: "What the registry sent is not what the manifest names: push the image again.",
  });
}

export function mismatch(where: Where, blob: Descriptor): RegistryError {
  const message = `${blobName(where, blob)} is not what its digest says`;
  return new RegistryError("digest_mismatch", message, where, {
    next: "The registry's copy (or a proxy's) is corrupt: push the image again.",
  });
}

export function misbehaved(where: Where, blob: Descriptor, why: string): RegistryError {
  const message = `${where.registry} misbehaved over ${blobName(where, blob)}: ${why}`;
  return new RegistryError("protocol", message, where, {
    next: "Check the registry, and any proxy in front of it.",
  });
}
