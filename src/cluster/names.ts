import { createHash, type X509Certificate } from "node:crypto";

/** In the certificates of gateways and schedulers; workers take containers from nobody without it. */
export const controlPlaneName = "control-plane.oci-node.internal";
/** What workers ask the scheduler's certificate for, wherever they reach it. */
export const schedulerName = "scheduler.oci-node.internal";

const workerSuffix = ".worker.oci-node.internal";

/** In a worker's certificate, and what is asked for when it is called. */
export function workerName(workerId: string): string {
  return `${workerId}${workerSuffix}`;
}

/** Whether a certificate, whose signature was checked, is a gateway's or a scheduler's. */
export function isControlPlane(certificate: X509Certificate): boolean {
  return dnsNamesOf(certificate).includes(controlPlaneName);
}

/** The worker that a certificate, whose signature was checked, was made for. */
export function workerIdOf(certificate: X509Certificate): string | undefined {
  const name = dnsNamesOf(certificate).find((dns) => dns.endsWith(workerSuffix));
  return name?.slice(0, -workerSuffix.length);
}

/** SHA-256 (hex) of a public key's SubjectPublicKeyInfo (DER). */
export function keySha256(publicKey: Uint8Array): string {
  return createHash("sha256").update(publicKey).digest("hex");
}

/**
 * The id of the worker that has this key: the first 122 free bits of the hash of its SubjectPublicKeyInfo, as a UUID of
 * version 8 (RFC 9562). Nobody chooses it, so nobody can claim another's.
 */
export function workerIdOfKey(publicKey: Uint8Array): string {
  const bytes = Buffer.from(keySha256(publicKey), "hex").subarray(0, 16);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** Names with commas or quotes are shown in quotes; none of ours is. */
function dnsNamesOf({ subjectAltName }: X509Certificate): string[] {
  const names = (subjectAltName ?? "").split(", ");
  return names.filter((name) => name.startsWith("DNS:")).map((name) => name.slice("DNS:".length));
}
