import { tokenUserName } from "./docker-helper.ts";
import { CredentialError } from "./error.ts";
import { isAzure } from "./family.ts";
import { azureTokenUserName } from "./short-lived.ts";
import type { HandedOut } from "./wire.ts";

/**
 * What was handed out as user name and password, for Kubernetes, which knows nothing else. An identity token is a password
 * at Azure's registries only.
 *
 * @throws CredentialError `bad_value`
 */
export function passwordPair({ registry, username, secret }: HandedOut & { readonly registry: string }): {
  readonly username: string;
  readonly password: string;
} {
  if (username !== tokenUserName) return { username, password: secret };
  if (isAzure(registry)) return { username: azureTokenUserName, password: secret };
  throw new CredentialError(
    "bad_value",
    `the credential for ${registry} is an identity token, which Kubernetes cannot use`,
    { next: "Store a user name and a password for the registry." },
  );
}
