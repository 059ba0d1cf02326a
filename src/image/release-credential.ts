import { createProvider } from "../credential/create-provider.ts";
import { CredentialError } from "../credential/error.ts";
import { identityKey } from "../credential/identity.ts";
import type { DefaultProvider, ProvidersOf } from "../credential/issuer.ts";
import { unmarshalCredentials } from "../credential/marshal.ts";
import type {
  CredentialProvider,
  RegistryAuthorization,
  RegistryCredential,
} from "../credential/provider.ts";
import { openedBy } from "../credential/scope.ts";
import type { Vault } from "../secret/vault.ts";
import { logger } from "../std/log.ts";
import { chooseSecret, type SecretWanted, secretMismatch } from "./choose-secret.ts";
import type { ImageStore } from "./store.ts";

const log = logger("image");

export interface ReleaseDependencies {
  readonly vault: Vault;
  readonly images: Pick<ImageStore, "list">;
  readonly providersOf: ProvidersOf;
  readonly defaultProvider: DefaultProvider;
  /** Whether the operator lets the workspace take stored credentials, and what his own identities get, out of the node. */
  readonly releaseAllowed: (workspaceId: string) => Promise<boolean>;
}

export interface ReleaseRequest extends SecretWanted {
  /** Who asks; stands in the log. */
  readonly tokenId: string;
}

export interface ReleasedCredential {
  readonly authorization: Exclude<RegistryAuthorization, { kind: "anonymous" | "bearer" }>;
  /** Undefined: it is the default identity's. */
  readonly secretName: string | undefined;
  /** What it is good for, in words. */
  readonly scope: string;
  /** Got for this one; undefined: it is the registry's. */
  readonly repository: string | undefined;
}

/**
 * A registry credential of a workspace for a program beside oci-node. What an issuer made for registries (a token of ECR or
 * Azure) is given out with its end. Only where the operator allows it: the stored credential itself, Google's tokens, which
 * open more than registries, and what an identity of his own gets, which is not the workspace's. Where there is no secret and he allows it, the default identity's is given.
 * Each is logged: who, which secret and version, never a value.
 *
 * @throws CredentialError `no_credentials`, `bad_value` when there are several, `registry_mismatch`, `release_refused`, and
 * those of the issuer; SecretError
 */
export async function releaseCredential(
  dependencies: ReleaseDependencies,
  request: ReleaseRequest,
  signal: AbortSignal,
): Promise<ReleasedCredential> {
  const { workspaceId, registry, repository, tokenId } = request;
  const candidate = await findCandidate(dependencies, request);
  const { credential, provider, source } = candidate;
  const about = { workspace: workspaceId, token: tokenId, registry, type: credential.type, ...source };
  const kept = describeKept(candidate);
  if (kept !== undefined && !(await dependencies.releaseAllowed(workspaceId))) {
    log.warning("refused to give out a registry credential", about);
    throw releaseRefused(registry, source, kept, candidate.workspaceName);
  }
  const authorization = await provider.authorization(signal);
  if (authorization.kind === "anonymous" || authorization.kind === "bearer") {
    throw inexpressible(registry, authorization.kind);
  }
  const validUntil = authorization.expiresAt?.toISOString() ?? null;
  log.info("gave out a registry credential", { ...about, validUntil });
  return {
    authorization,
    secretName: source.secret,
    scope: openedBy(registry),
    repository: candidate.ofRepository || credential.type === "identity" ? repository : undefined,
  };
}

interface Candidate {
  readonly credential: RegistryCredential;
  readonly provider: CredentialProvider;
  readonly ofRepository: boolean;
  readonly source: {
    readonly secret?: string;
    readonly secretId?: string;
    readonly version?: number;
    readonly identity?: string;
  };
  readonly workspaceName: string;
}

async function findCandidate(dependencies: ReleaseDependencies, request: ReleaseRequest): Promise<Candidate> {
  const { vault, providersOf } = dependencies;
  const { workspaceId, registry, repository } = request;
  const chosen = await chooseSecret(dependencies, request);
  if (chosen === undefined) return await defaultCandidate(dependencies, request);
  const { secret, ofRepository } = chosen;
  const { value, version } = await vault.read(workspaceId, secret.id);
  const credential = unmarshalCredentials(value);
  if (credential.registry !== registry) throw secretMismatch(secret.name, credential.registry, registry);
  const needed = await providersOf(workspaceId);
  const provider = createProvider(credential, {
    ...needed,
    ...(repository === undefined ? {} : { repository }),
  });
  const source = { secret: secret.name, secretId: secret.id, version };
  return { credential, provider, ofRepository, source, workspaceName: needed.workspace?.name ?? "NAME" };
}

/** Without the operator's leave it counts as none, so that others' programs pull public images as if there was no node. */
async function defaultCandidate(
  { defaultProvider, releaseAllowed }: ReleaseDependencies,
  { workspaceId, registry }: ReleaseRequest,
): Promise<Candidate> {
  const allowed = await releaseAllowed(workspaceId);
  const standard = allowed ? await defaultProvider(workspaceId, registry) : undefined;
  if (standard === undefined) {
    throw new CredentialError("no_credentials", `the workspace has no secret for ${registry}`, {
      next: `Make one: oci-node secret create ${registry} --creds KEY,KEY`,
    });
  }
  const { credential, provider, name } = standard;
  return { credential, provider, ofRepository: false, source: { identity: name }, workspaceName: "" };
}

/** What would be given out that is not made for registries alone, or not the workspace's own; undefined: nothing of the kind. */
function describeKept({ credential, provider }: Candidate): string | undefined {
  if (identityKey in credential.credentials) return "comes by an identity of the operator's";
  if (credential.type === "gcp") return "opens all that its account may at Google, not the registry alone";
  return provider.renewable
    ? undefined
    : "is the stored credential itself, for which nothing short-lived can be had";
}

function releaseRefused(
  registry: string,
  { secret }: Candidate["source"],
  kept: string,
  workspaceName: string,
): CredentialError {
  return new CredentialError(
    "release_refused",
    `the credential for ${registry} (secret ${secret}) ${kept}, and the operator does not let it out of the node`,
    {
      next: `He allows it in the node's configuration: [workspaces.${workspaceName}] release_credentials = true.`,
    },
  );
}

function inexpressible(registry: string, kind: "anonymous" | "bearer"): CredentialError {
  const what =
    kind === "bearer" ? "is a bare bearer token, which cannot be handed to other programs" : "is empty";
  return new CredentialError("bad_value", `the credential for ${registry} ${what}`, {
    next: "Store a user name and a password, or keys from which tokens can be made.",
  });
}
