import { createHash, timingSafeEqual } from "node:crypto";
import type { LocalKey } from "./kek.ts";

/**
 * What schedulers and gateways present when they call one boot of a worker. Derived, not stored: every process that
 * holds the key file computes the same, and a worker that boots again has another.
 */
export function workerCallToken(kek: LocalKey, workerId: string, bootNonce: string): string {
  const bytes = kek.derive("oci-node worker call v1", workerId, bootNonce);
  return `ocw_${Buffer.from(bytes).toString("base64url")}`;
}

/** Compares two tokens in time that does not depend on where they differ. */
export function isSameToken(given: string, expected: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(expected));
}
