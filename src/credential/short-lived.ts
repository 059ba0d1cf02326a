import { parseEcrRegistry } from "./ecr-host.ts";
import { isAzure, isGoogle } from "./family.ts";
import type { CredentialMap } from "./provider.ts";

/** Beside which Azure's registries take a refresh token as a password. */
export const azureTokenUserName = "00000000-0000-0000-0000-000000000000";

/**
 * What a user name says of its password: that a cloud's tool made it for a login and that it ends by itself. `undefined`:
 * nothing of the kind.
 */
export function describeShortLived(registry: string, credentials: CredentialMap): string | undefined {
  const username = credentials["USERNAME"]?.expose();
  if (username === "AWS" && parseEcrRegistry(registry) !== undefined)
    return "a token of Amazon's, which ends after 12 hours";
  if (username === "oauth2accesstoken" && isGoogle(registry)) {
    return "an access token of Google's, which ends after an hour";
  }
  const azure = username === azureTokenUserName || credentials["REGISTRY_IDENTITY_TOKEN"] !== undefined;
  return azure && isAzure(registry) ? "a refresh token of Azure's, which ends after 3 hours" : undefined;
}
