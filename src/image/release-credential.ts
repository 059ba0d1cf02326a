import { createProvider } from "../credential/create-provider.ts";
import { CredentialError } from "../credential/error.ts";
import type { ProvidersOf } from "../credential/issuer.ts";
import { unmarshalCredentials } from "../credential/marshal.ts";
import type { CredentialProvider, RegistryAuthorization } from "../credential/provider.ts";
import { issuedScope } from "../credential/scope.ts";
import type { SecretMetadata, Vault } from "../secret/vault.ts";
import { logger } from "../std/log.ts";

const log = logger("image");

export interface ReleaseDependencies {
  readonly vault: Vault;
  readonly providersOf: ProvidersOf;
  /** Whether the operator lets the workspace take stored credentials, and what his own identities get, out of the node. */
  readonly releaseAllowed: (workspaceId: string) => Promise<boolean>;
}

export interface ReleaseRequest {
  readonly workspaceId: string;
  /** Who asks; stands in the log. */
  readonly tokenId: string;
  readonly registry: string;
  /** Absent: whatever is to be pulled. */
  readonly repository?: string | undefined;
  /** Undefined: the workspace's only secret for the registry. */
  readonly secretName: string | undefined;
}

export interface ReleasedCredential {
  readonly authorization: Exclude<RegistryAuthorization, { kind: "anonymous" | "bearer" }>;
  readonly secretName: string;
  /** What it is good for, in words. */
  readonly scope: string;
  /** Got for this one; undefined: it is the registry's. */
  readonly repository: string | undefined;
}

/**
 * A registry credential of a workspace for a program beside oci-node. What an issuer made (a token of ECR, Google, Azure)
 * is given out with its end; the stored credential itself only where the operator allows that, and so what an identity of
 * his own gets, which is not the workspace's. Each is logged: who, which secret and version, never a value.
 *
 * @throws CredentialError `no_credentials`, `bad_value` when there are several, `registry_mismatch`, `release_refused`, and
 * those of the issuer; SecretError
 */
export async function releaseCredential(
  dependencies: ReleaseDependencies,
  request: ReleaseRequest,
  signal: AbortSignal,
): Promise<ReleasedCredential> {
  const { vault, providersOf, releaseAllowed } = dependencies;
  const { workspaceId, registry, repository, tokenId } = request;
  const secret = await chooseSecret(vault, request);
  const { value, version } = await vault.read(workspaceId, secret.id);
  const credential = unmarshalCredentials(value);
  if (credential.registry !== registry) throw mismatch(secret.name, credential.registry, registry);
  const who = { workspace: workspaceId, token: tokenId, registry, type: credential.type };
  const which = { secret: secret.name, secretId: secret.id, version };
  const needed = await providersOf(workspaceId);
  const provider = createProvider(credential, {
    ...needed,
    ...(repository === undefined ? {} : { repository }),
  });
  const kept = describeKept(provider);
  if (kept !== undefined && !(await releaseAllowed(workspaceId))) {
    log.warning("refused to give out a registry credential", { ...who, ...which });
    throw releaseRefused(secret, kept, needed.workspace?.name ?? "NAME");
  }
  const authorization = await provider.authorization(signal);
  if (authorization.kind === "anonymous" || authorization.kind === "bearer") {
    throw inexpressible(secret.name, authorization.kind);
  }
  const validUntil = authorization.expiresAt?.toISOString() ?? null;
  log.info("gave out a registry credential", { ...who, ...which, validUntil });
  return {
    authorization,
    secretName: secret.name,
    scope: issuedScope(registry) ?? `every repository on ${registry} that its account may pull`,
    repository: credential.type === "identity" ? repository : undefined,
  };
}

async function chooseSecret(vault: Vault, request: ReleaseRequest): Promise<SecretMetadata> {
  const { workspaceId, registry, secretName } = request;
  if (secretName !== undefined) {
    const secret = await vault.get(workspaceId, secretName);
    if (secret.registry === registry) return secret;
    throw mismatch(secretName, secret.registry, registry);
  }
  const fitting = (await vault.list(workspaceId)).filter((secret) => secret.registry === registry);
  const [first, ...others] = fitting;
  if (first === undefined) {
    throw new CredentialError("no_credentials", `the workspace has no secret for ${registry}`, {
      next: `Make one: oci-node secret create ${registry} --creds KEY,KEY`,
    });
  }
  if (others.length === 0) return first;
  const shown = fitting.slice(0, 10).map(({ name, principal }) => `${name} (${principal})`);
  throw new CredentialError(
    "bad_value",
    `the workspace has several secrets for ${registry}: ${shown.join(", ")}`,
    {
      next: "Choose one with --secret NAME, or for Docker with the variable OCI_NODE_SECRET=NAME.",
    },
  );
}

/** What would be given out that is not made for the occasion; undefined: nothing of the kind. */
function describeKept(provider: CredentialProvider): string | undefined {
  if (provider.type === "identity") return "comes from an identity of the operator's";
  return provider.renewable
    ? undefined
    : "is the stored credential itself, for which nothing short-lived can be had";
}

function mismatch(secretName: string, actual: string, asked: string): CredentialError {
  return new CredentialError("registry_mismatch", `the secret ${secretName} is for ${actual}, not ${asked}`, {
    next: "Choose a secret of the registry: see `oci-node secret ls`.",
  });
}

function releaseRefused(
  { name, registry }: SecretMetadata,
  kept: string,
  workspace: string,
): CredentialError {
  return new CredentialError(
    "release_refused",
    `the credential for ${registry} (secret ${name}) ${kept}, and the operator does not let it out of the node`,
    {
      next: `He allows it in the node's configuration: [workspaces.${workspace}] release_credentials = true.`,
    },
  );
}

function inexpressible(secretName: string, kind: "anonymous" | "bearer"): CredentialError {
  const what =
    kind === "bearer" ? "is a bare bearer token, which cannot be handed to other programs" : "is empty";
  return new CredentialError("bad_value", `the secret ${secretName} ${what}`, {
    next: "Store a user name and a password, or keys from which tokens can be made.",
  });
}
