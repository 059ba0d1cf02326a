import { assertionAudience, type EntraProof, entraApp, entraToken } from "./azure-entra.ts";
import { type AcrVisitor, acrRefreshToken } from "./azure-exchange.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { issuedProvider } from "./issued-provider.ts";
import { fetchOf, type ProviderDependencies } from "./issuer.ts";
import type { IssuedToken, IssuerCall } from "./issuer-answer.ts";
import type { CredentialMap, CredentialProvider, RegistryCredential } from "./provider.ts";
import { subjectToken } from "./workspace-token.ts";

/**
 * Refresh tokens of Azure's registries live about three hours, and say so themselves. At half of that there is a new one,
 * so that Entra may be away for the other half.
 */
const keepRule = { lifeMs: 3 * 3600_000, marginMs: 90 * 60_000 };

/** Whether Azure's keys are exchanged; without a tenant they are a user name and a password. */
export function isExchanged(credentials: CredentialMap): boolean {
  return credentials["AZURE_TENANT_ID"] !== undefined;
}

/**
 * Azure Container Registry with an application of Entra: by its secret, or without one by the workspace's own token
 * (workload identity federation), exchanged at the registry for a token that renews itself.
 *
 * @throws CredentialError `bad_value`
 */
export function azureProvider(
  credential: RegistryCredential,
  dependencies: ProviderDependencies,
): CredentialProvider {
  const { registry, credentials } = credential;
  const clientId = credentials["AZURE_CLIENT_ID"]?.expose() ?? "";
  const app = entraApp(registry, clientId, credentials["AZURE_TENANT_ID"]?.expose() ?? "");
  const secret = credentials["AZURE_CLIENT_SECRET"];
  const { workspace } = dependencies;
  const proof = async (): Promise<EntraProof> => {
    if (secret !== undefined) return { kind: "secret", secret };
    return {
      kind: "assertion",
      assertion: await subjectToken(workspace, assertionAudience, "give AZURE_CLIENT_SECRET as well"),
    };
  };
  return acrIssuer({
    credential,
    whose: secret === undefined ? workspace?.externalId : undefined,
    visitor: { name: `the application ${clientId}`, tenant: app.tenant },
    make: async (call) => entraToken(app, await proof(), call),
    dependencies,
  });
}

/** What a provider for Azure's registries makes its tokens by. */
export interface AcrIssuer {
  readonly credential: RegistryCredential;
  /** Part of the fingerprint, where the credential alone does not say whose tokens these are. */
  readonly whose: string | undefined;
  readonly visitor: AcrVisitor;
  /** Makes the token of Entra. */
  readonly make: (call: IssuerCall) => Promise<IssuedToken>;
  readonly dependencies: ProviderDependencies;
}

/** The provider that exchanges tokens of Entra at the registry, and keeps what it has. */
export function acrIssuer({ credential, whose, visitor, make, dependencies }: AcrIssuer): CredentialProvider {
  const { registry, type } = credential;
  const fingerprint = fingerprintOf(credential, whose);
  const call = { send: fetchOf(dependencies), now: dependencies.now ?? Date.now };
  const issue = async () => acrRefreshToken(registry, (await make(call)).value, visitor, call);
  return issuedProvider({ registry, type, fingerprint }, keepRule, issue, dependencies);
}
