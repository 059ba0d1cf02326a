import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { chooseFamily, keysOf } from "./family.ts";
import type { ProviderDependencies, WorkspaceIdentity } from "./issuer.ts";
import type { CredentialMap, CredentialProvider, RegistryCredential } from "./provider.ts";

/** The key that names one of the operator's own identities. */
export const identityKey = "OCI_NODE_IDENTITY";

/**
 * The name under {@link identityKey}. What is not shaped like a name is refused before anything is told of it: somebody
 * may have put a password there.
 *
 * @throws CredentialError `bad_value`
 */
export function identityName(credentials: CredentialMap): string {
  const name = credentials[identityKey]?.expose() ?? "";
  if (/^[a-z0-9][a-z0-9_-]{0,62}$/.test(name)) return name;
  throw new CredentialError("bad_value", `${identityKey} is not the name of an identity`, {
    next: `Set ${identityKey} to a name from \`oci-node identity\`.`,
  });
}

/** The credential that stands for one of the operator's identities: a name, and nothing secret. */
export function identityCredential(registry: string, name: string): RegistryCredential {
  return { registry, type: "identity", credentials: { [identityKey]: new Redacted(name) } };
}

/**
 * One of the operator's identities, by its name. Whether the workspace may use it is asked here and again before each
 * authorization.
 *
 * @throws CredentialError `identity_refused`, `registry_mismatch`, `bad_value`
 */
export function identityProvider(
  credential: RegistryCredential,
  dependencies: ProviderDependencies,
): CredentialProvider {
  const name = identityName(credential.credentials);
  const workspace = workspaceFor(name, dependencies);
  const provider = workspace.identity(name).provider(credential.registry, dependencies.repository);
  return {
    registry: credential.registry,
    type: "identity",
    fingerprint: provider.fingerprint,
    renewable: provider.renewable,
    advice:
      provider.advice ??
      `Have the operator let the identity ${name} pull it, or give credentials of your own.`,
    async authorization(signal, options) {
      workspace.identity(name);
      return await provider.authorization(signal, options);
    },
  };
}

function workspaceFor(name: string, { workspace }: ProviderDependencies): WorkspaceIdentity {
  if (workspace !== undefined) return workspace;
  throw new CredentialError("identity_refused", `the identity ${name} cannot be used here`, {
    next: "Identities belong to a node: use `oci-node image build` and `run`, or give credentials of your own.",
  });
}

const keysOfWorkspace: ReadonlySet<string> = new Set([
  identityKey,
  "AWS_ROLE_ARN",
  "GCP_WORKLOAD_IDENTITY_PROVIDER",
]);

/**
 * Whether a worker can use a credential by itself: not one that needs to know whose workspace it is (an identity, a
 * role, federation), since only the control plane can prove that. Such a one can be minted only.
 */
export function canBeSealed({ registry, credentials }: RegistryCredential): boolean {
  const family = chooseFamily(registry, credentials);
  if (family === undefined) return true;
  const keys = Object.keys(keysOf(family, credentials));
  if (keys.some((key) => keysOfWorkspace.has(key))) return false;
  return family.type !== "azure" || keys.includes("AZURE_CLIENT_SECRET");
}

/** A registry is not of the cloud at which an identity of the operator's is something. */
export function identityOfAnother(name: string, cloud: string, registry: string): CredentialError {
  return new CredentialError("registry_mismatch", `identity ${name} is ${cloud}'s, and ${registry} is not`, {
    next: `Give a credential for ${registry}.`,
  });
}
