import { tokenUserName } from "./docker-helper.ts";
import type { CredentialMap, RegistryAuthorization } from "./provider.ts";
import { credentialMap } from "./value.ts";

/** The values as an API message carries them (inside TLS or over loopback). The message must not be logged or kept. */
export function credentialsToWire(credentials: CredentialMap): Record<string, string> {
  return Object.fromEntries(Object.entries(credentials).map(([key, value]) => [key, value.expose()]));
}

/**
 * Takes the values of an API message under cover, each checked: whoever calls need not be our command line.
 *
 * @throws CredentialError `unknown_key`, `bad_value`, `missing_key`
 */
export function credentialsFromWire(values: Readonly<Record<string, string>>): CredentialMap {
  return credentialMap(values);
}

/** A user name and a secret, in the clear: what Docker's credential helpers and the kubelet pass on. */
export interface HandedOut {
  /** `<token>`: the secret is an identity token. */
  readonly username: string;
  readonly secret: string;
}

/**
 * An authorization as a response carries it, on its way out of our hands. `undefined`: it has no such form, as nothing and
 * a bearer token have none.
 */
export function authorizationToWire(authorization: RegistryAuthorization): HandedOut | undefined {
  if (authorization.kind === "basic") {
    return { username: authorization.username, secret: authorization.password.expose() };
  }
  if (authorization.kind !== "refresh") return undefined;
  return { username: tokenUserName, secret: authorization.token.expose() };
}
