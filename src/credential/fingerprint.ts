import { createHmac, randomBytes } from "node:crypto";
import type { RegistryCredential } from "./provider.ts";

/** Made anew in each process: a fingerprint in a log tells nothing about a password, not even by guessing. */
const processKey = randomBytes(32);

/**
 * Equal for equal credentials, within this process only.
 *
 * @param workspace who uses it, where the credential is no secret and what it stands for depends on that (federation, a
 *   role): its external id. Two workspaces may write down the same federation, and must not get each other's tokens
 */
export function fingerprintOf(credential: RegistryCredential, workspace?: string): string {
  const mac = createHmac("sha256", processKey);
  const add = (text: string): void => void mac.update(`${Buffer.byteLength(text)}:`).update(text);
  add(credential.registry);
  add(credential.type);
  for (const key of Object.keys(credential.credentials).sort()) {
    add(key);
    add(credential.credentials[key]?.expose() ?? "");
  }
  if (workspace !== undefined) {
    add("workspace");
    add(workspace);
  }
  return mac.digest("hex").slice(0, 32);
}
