import type { IdentitySettings } from "../config.ts";
import { CredentialError } from "../credential/error.ts";
import type { Identity, IdentityDependencies } from "../credential/issuer.ts";

/** One of the operator's identities as the configuration describes it. Asks nobody yet. */
export function createIdentity(
  name: string,
  settings: IdentitySettings,
  _dependencies: IdentityDependencies,
): Identity {
  throw new CredentialError(
    "identity_refused",
    `the identity ${name} is of type ${settings.type}, which this version cannot use`,
    { next: "Use another identity, or give credentials." },
  );
}
