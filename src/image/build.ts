import { createProvider } from "../credential/create-provider.ts";
import { detectCredentialType } from "../credential/detect.ts";
import { CredentialError } from "../credential/error.ts";
import { identityName } from "../credential/identity.ts";
import type { DefaultProvider, ProvidersOf } from "../credential/issuer.ts";
import { unmarshalCredentials } from "../credential/marshal.ts";
import {
  anonymousProvider,
  type CredentialMap,
  provedAnew,
  type RegistryCredential,
} from "../credential/provider.ts";
import type { BuiltImageIndex } from "../index/image-index.ts";
import { indexRepository } from "../index/index-repository.ts";
import type { LayerKeeper } from "../index/layer-keeper.ts";
import type { IndexLimits } from "../index/limits.ts";
import type { IndexStore } from "../index/store.ts";
import { formatPlatform, type Platform } from "../reference/platform.ts";
import { formatReference, type Reference } from "../reference/reference.ts";
import type { RegistryClient } from "../registry/client.ts";
import { RegistryError } from "../registry/error.ts";
import { describeLeft, type PullLimit } from "../registry/pull-limit.ts";
import type { ResolvedImage } from "../registry/repository.ts";
import { opaqueType, wrongKind } from "../secret/opaque.ts";
import type { SecretMetadata, Vault } from "../secret/vault.ts";
import { type CredentialSecret, createCredentialSecretIfNeeded } from "./credential-secret.ts";
import type { Image } from "./image.ts";
import { layerProofs } from "./layer-proofs.ts";
import type { ImageStore } from "./store.ts";

/** What a build works with. */
export interface BuildDependencies {
  readonly registry: RegistryClient;
  readonly providersOf: ProvidersOf;
  readonly defaultProvider: DefaultProvider;
  /** Names of the operator's identities that a workspace may use and that are for this registry. */
  readonly identitiesFor: (
    workspaceId: string,
    registry: string,
    repository: string,
  ) => Promise<readonly string[]>;
  readonly vault: Vault;
  readonly images: ImageStore;
  readonly index: IndexStore;
  readonly scratchDir: string;
  /** Takes the contents of the layers that are indexed, where a worker of this node will want them. */
  readonly keeper?: LayerKeeper | undefined;
  readonly limits: IndexLimits;
  /** Told of a secret whose current version the registry took just now. */
  readonly onProved?: (secret: SecretMetadata) => Promise<void>;
}

export interface BuildRequest {
  readonly workspaceId: string;
  readonly reference: Reference;
  /** Undefined: none were given. */
  readonly credentials: CredentialMap | undefined;
  /** A secret of the workspace to use in place of credentials. */
  readonly secretName: string | undefined;
  readonly platform: Platform;
  /** Leave the layers' contents alone. */
  readonly indexOnly?: boolean;
}

export type BuildStep = "resolve" | "index" | "merge" | "secret" | "done";

/** How far a build is; with a layer's digest, how many of its compressed bytes are indexed. */
export interface BuildProgress {
  readonly step: BuildStep;
  readonly message: string;
  readonly layerDigest?: string;
  readonly bytesDone?: number;
  readonly bytesTotal?: number;
  /** What the registry said of how often it may still be asked. */
  readonly pullLimit?: PullLimit;
}

/**
 * Builds an image: proves access with the very credentials, indexes the layers that are not indexed yet, keeps the
 * credentials as a secret, and names the secret in the image's row. Building again changes nothing but what is new.
 *
 * @throws RegistryError, IndexError, CredentialError, SecretError
 */
export async function buildImage(
  dependencies: BuildDependencies,
  request: BuildRequest,
  onProgress: (progress: BuildProgress) => void,
  signal: AbortSignal,
): Promise<Image> {
  const { reference, workspaceId } = request;
  const shown = formatReference(reference);
  const access = await chooseAccess(dependencies, request);
  const provider =
    access.credential === undefined
      ? anonymousProvider(reference.registry)
      : provedAnew(
          createProvider(access.credential, {
            ...(await dependencies.providersOf(workspaceId)),
            repository: reference.repository,
          }),
          access.isNew,
        );
  onProgress({ step: "resolve", message: `resolving ${shown} ${access.description}` });
  const repository = dependencies.registry.repository(reference, provider);
  const resolved = await withHint(access, dependencies, request, () =>
    repository.resolve(request.platform, signal),
  );
  const pullLimit = repository.pullLimit();
  if (pullLimit !== undefined) {
    onProgress({ step: "resolve", message: describeLeft(pullLimit), pullLimit });
  }

  onProgress({ step: "index", message: `indexing ${resolved.layers.length} layers` });
  const built = await indexRepository({
    repository,
    resolved,
    store: dependencies.index,
    scratchDir: dependencies.scratchDir,
    proofs: layerProofs(dependencies.images.proofs, repository),
    keeper: request.indexOnly === true ? undefined : dependencies.keeper,
    limits: dependencies.limits,
    onProgress: ({ digest, bytesDone, bytesTotal }) =>
      onProgress({ step: "index", message: "indexing", layerDigest: digest, bytesDone, bytesTotal }),
    signal,
  });
  signal.throwIfAborted();
  const kept =
    access.credential === undefined
      ? undefined
      : await createCredentialSecretIfNeeded(
          dependencies.vault,
          workspaceId,
          access.credential,
          repository.tookCredential(),
        );
  const image = await record(dependencies, request, resolved, built);
  if (kept !== undefined) {
    await dependencies.images.setImageCredentialSecret(image.id, kept.secret.name, kept.secret.id);
    const holdsIt = kept.outcome !== "outdated" && kept.outcome !== "unproved";
    if (holdsIt && repository.tookCredential()) await dependencies.onProved?.(kept.secret);
    onProgress({
      step: "secret",
      message: sayKept(kept, reference.registry),
    });
  }
  onProgress({ step: "done", message: `built ${image.id}` });
  return await dependencies.images.get(workspaceId, image.id);
}

function sayKept({ secret, outcome }: CredentialSecret, registry: string): string {
  if (outcome === "unproved")
    return `secret ${secret.name} left as it is: ${registry} did not ask for the credentials`;
  if (outcome === "outdated")
    return `secret ${secret.name} left as it is, at version ${secret.version}: the credentials given are those of an earlier version (to go back to them: oci-node secret update ${secret.name})`;
  return `credentials kept as secret ${secret.name} (${outcome})`;
}

interface Access {
  readonly credential: RegistryCredential | undefined;
  readonly description: string;
  /** It may take another's place in the workspace's secrets. */
  readonly isNew: boolean;
}

/**
 * The credentials given, or those of the secret named, or the workspace's default identity, or none: nothing is guessed,
 * and one that the registry refuses is not followed by the next.
 */
async function chooseAccess(dependencies: BuildDependencies, request: BuildRequest): Promise<Access> {
  const { registry } = request.reference;
  const { credentials, secretName } = request;
  const given = credentials !== undefined && Object.keys(credentials).length > 0;
  if (given && secretName !== undefined) {
    throw new CredentialError("bad_value", "both credentials and the name of a secret were given", {
      next: "Give one of them.",
    });
  }
  if (secretName !== undefined) {
    const { value, type } = await dependencies.vault.read(request.workspaceId, secretName);
    if (type === opaqueType) throw wrongKind(secretName, type, "");
    const credential = unmarshalCredentials(value);
    if (credential.registry !== registry) {
      throw new CredentialError(
        "registry_mismatch",
        `the secret ${secretName} is for ${credential.registry}, not ${registry}`,
        {
          next: "Choose a secret of the image's registry: see `oci-node secret ls`.",
        },
      );
    }
    return { credential, description: `with secret ${secretName}`, isNew: false };
  }
  if (!given) return await chooseDefault(dependencies, request);
  const type = detectCredentialType(registry, credentials);
  const credential = { registry, type, credentials };
  const isIdentity = type === "identity";
  const what = isIdentity ? `identity ${identityName(credentials)}` : "credentials given";
  return { credential, description: `with the ${what}`, isNew: !isIdentity };
}

async function chooseDefault({ defaultProvider }: BuildDependencies, request: BuildRequest): Promise<Access> {
  const { registry, repository } = request.reference;
  const standard = await defaultProvider(request.workspaceId, registry, repository);
  if (standard === undefined)
    return { credential: undefined, description: "without credentials", isNew: false };
  const description = `with the identity ${standard.name}, the workspace's default`;
  return { credential: standard.credential, description, isNew: false };
}

/** A refusal without credentials says how to give some, and which secrets and identities there are. */
async function withHint<T>(
  access: Access,
  { vault, identitiesFor }: BuildDependencies,
  { workspaceId, reference }: BuildRequest,
  call: () => Promise<T>,
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof RegistryError) || access.credential !== undefined) throw error;
    if (error.code !== "unauthorized" && error.code !== "denied") throw error;
    const secrets = (await vault.list(workspaceId)).filter(({ registry }) => registry === error.registry);
    const ways = [
      "--creds KEY,KEY",
      "--creds-file FILE",
      "--creds-from docker",
      ...secrets.map(({ name }) => `--secret ${name}`),
      ...(await identitiesFor(workspaceId, reference.registry, reference.repository)).map(
        (name) => `--identity ${name}`,
      ),
    ];
    const next = `Give credentials with ${ways.slice(0, -1).join(", ")} or ${ways.at(-1)}.`;
    throw new RegistryError(error.code, error.message, error, { next });
  }
}

async function record(
  { images }: BuildDependencies,
  { workspaceId, reference, platform }: BuildRequest,
  resolved: ResolvedImage,
  { index, sha256 }: BuiltImageIndex,
): Promise<Image> {
  const row = {
    workspaceId,
    registry: reference.registry,
    repository: reference.repository,
    reference: formatReference(reference),
    manifestDigest: resolved.manifest.digest,
    configDigest: resolved.config.digest,
    platform: formatPlatform(platform),
    indexSha256: sha256,
    sizeBytes: resolved.layers.reduce((sum, layer) => sum + layer.size, 0),
    inodes: index.inodes,
    status: "ready" as const,
  };
  return await images.put(row, index.layers);
}
