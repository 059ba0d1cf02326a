import type { KeepRule } from "./issued.ts";
import { issuedOf, type ProviderDependencies } from "./issuer.ts";
import type { CredentialProvider, RegistryAuthorization } from "./provider.ts";

/** The provider of what an issuer makes anew: kept by the rule, under the fingerprint, and asked for again when refused. */
export function issuedProvider(
  { registry, type, fingerprint }: Pick<CredentialProvider, "registry" | "type" | "fingerprint">,
  rule: KeepRule,
  issue: () => Promise<RegistryAuthorization>,
  dependencies: ProviderDependencies,
): CredentialProvider {
  return {
    registry,
    type,
    fingerprint,
    renewable: true,
    authorization: (signal, options) =>
      issuedOf(dependencies).get(fingerprint, rule, issue, { signal, refresh: options?.refresh }),
  };
}
