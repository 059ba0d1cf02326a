import { createHmac, randomBytes } from "node:crypto";
import type { RegistryCredential } from "./provider.ts";

/** Made anew in each process: a fingerprint in a log tells nothing about a password, not even by guessing. */
const processKey = randomBytes(32);

/** Equal for equal credentials, within this process only. */
export function fingerprintOf(credential: RegistryCredential): string {
  const mac = createHmac("sha256", processKey);
  const add = (text: string): void => void mac.update(`${Buffer.byteLength(text)}:`).update(text);
  add(credential.registry);
  add(credential.type);
  for (const key of Object.keys(credential.credentials).sort()) {
    add(key);
    add(credential.credentials[key]?.expose() ?? "");
  }
  return mac.digest("hex").slice(0, 32);
}
