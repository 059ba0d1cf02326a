import type { Config } from "../config.ts";
import { createProvider } from "../credential/create-provider.ts";
import { CredentialError } from "../credential/error.ts";
import { identityCredential } from "../credential/identity.ts";
import type {
  DefaultProvider,
  IdentityDependencies,
  ProvidersOf,
  WorkspaceIdentity,
} from "../credential/issuer.ts";
import { type IdentityIssuer, subjectOf } from "../secret/identity-issuer.ts";
import type { DescribeIdentity } from "../secret/identity-service.ts";
import { createIdentities } from "./identities.ts";
import type { WorkspacePolicies, WorkspacePolicy } from "./workspace-policy.ts";

/** `sts:ExternalId` of a workspace; AWS allows `\w+=,.@:/-`, 2 to 1224 characters. */
export function externalIdOf(workspaceId: string): string {
  return `oci-node:${workspaceId}`;
}

/**
 * What the providers of a workspace's credentials get: who it is, and the operator's identities that it may use. An
 * identity is made once for all workspaces, so that what clouds issue to it is asked for once.
 *
 * @throws ConfigError when the settings of an identity are wrong
 */
export function createProvidersOf(dependencies: {
  readonly config: Config;
  readonly policies: WorkspacePolicies;
  readonly issuers: IdentityDependencies;
  /** Undefined: workspaces have no tokens. */
  readonly issuer: IdentityIssuer | undefined;
}): ProvidersOf {
  const { config, policies, issuers, issuer } = dependencies;
  const identities = createIdentities(config.identities, issuers);
  return async (workspaceId) => {
    const policy = await policies(workspaceId);
    const workspace: WorkspaceIdentity = {
      name: policy.name,
      externalId: externalIdOf(workspaceId),
      ...(issuer === undefined
        ? {}
        : { token: (audience: string) => issuer.token({ id: workspaceId, name: policy.name }, audience) }),
      identity(name) {
        assertAllowed(policy, name);
        const identity = identities.get(name);
        // The configuration was refused if it gave a workspace what it does not have.
        if (identity === undefined) throw new Error("an identity that is allowed is not there");
        return identity;
      },
    };
    return { fetch: issuers.fetch, workspace };
  };
}

/** Tells a workspace who it is to clouds, and which identities it may use. */
export function createDescription(dependencies: {
  readonly config: Config;
  readonly policies: WorkspacePolicies;
}): DescribeIdentity {
  const { config, policies } = dependencies;
  return async (workspaceId) => {
    const { name, identities, default_identity: standard } = await policies(workspaceId);
    return {
      workspace: name,
      externalId: externalIdOf(workspaceId),
      issuer: config.identity.issuer,
      subject: subjectOf(name),
      identities: identities.map((identity) => ({
        name: identity,
        type: config.identities[identity]?.type ?? "",
        default: identity === standard,
      })),
    };
  };
}

/** The default identity of a workspace at a registry; one that is for other registries counts as none. */
export function createDefaultProvider(dependencies: {
  readonly policies: WorkspacePolicies;
  readonly providersOf: ProvidersOf;
}): DefaultProvider {
  return async (workspaceId, registry, repository) => {
    const { default_identity: name } = await dependencies.policies(workspaceId);
    if (name === undefined) return undefined;
    const credential = identityCredential(registry, name);
    try {
      const provider = createProvider(credential, {
        ...(await dependencies.providersOf(workspaceId)),
        ...(repository === undefined ? {} : { repository }),
      });
      return { name, credential, provider };
    } catch (error) {
      if (error instanceof CredentialError && error.code === "registry_mismatch") return undefined;
      throw error;
    }
  };
}

/** The names of a workspace's identities that are for a registry, as far as that is known without asking anybody. */
export function createIdentitiesFor(dependencies: {
  readonly policies: WorkspacePolicies;
  readonly providersOf: ProvidersOf;
}): (workspaceId: string, registry: string, repository: string) => Promise<readonly string[]> {
  return async (workspaceId, registry, repository) => {
    const { identities } = await dependencies.policies(workspaceId);
    const { workspace } = await dependencies.providersOf(workspaceId);
    return identities.filter((name) => {
      try {
        return workspace?.identity(name).provider(registry, repository) !== undefined;
      } catch (error) {
        if (error instanceof CredentialError && error.code === "registry_mismatch") return false;
        throw error;
      }
    });
  };
}

/** Whether an identity exists is told only to those who may use it. */
function assertAllowed(policy: WorkspacePolicy, name: string): void {
  if (policy.identities.includes(name)) return;
  throw new CredentialError(
    "identity_refused",
    `the workspace ${policy.name} may not use the identity ${name}`,
    {
      next: `See \`oci-node identity\` for those that it may use; the operator allows another in the node's configuration: [workspaces.${policy.name}] identities = ["${name}"].`,
    },
  );
}
