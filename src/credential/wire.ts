import { Redacted } from "../std/redacted.ts";
import type { CredentialMap } from "./provider.ts";

/** The values as an API message carries them (inside TLS or over loopback). The message must not be logged or kept. */
export function credentialsToWire(credentials: CredentialMap): Record<string, string> {
  return Object.fromEntries(Object.entries(credentials).map(([key, value]) => [key, value.expose()]));
}

/** Takes the values of an API message under cover. */
export function credentialsFromWire(values: Readonly<Record<string, string>>): CredentialMap {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, new Redacted(value)]));
}
