import { createProvider } from "../credential/create-provider.ts";
import { unmarshalCredentials } from "../credential/marshal.ts";
import { anonymousProvider, type CredentialProvider } from "../credential/provider.ts";
import { parseReference } from "../reference/reference.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import type { RegistryClient } from "../registry/client.ts";
import { blobSource } from "../registry/repository.ts";
import type { BootKey, SealContext } from "../secret/seal.ts";
import { logger } from "../std/log.ts";
import type { AccessGrants } from "./grants.ts";

const log = logger("worker");

/** A container of this worker, and the image that it uses. */
export interface ImageUser {
  readonly containerId: string;
  readonly attempt: number;
  readonly workspaceId: string;
  readonly manifestDigest: string;
}

/** What a worker was given to fetch an image with. */
export interface ImageAccess {
  readonly containerId: string;
  readonly workspaceId: string;
  /** `registry/repository@digest`. */
  readonly imageReference: string;
  readonly manifestDigest: string;
  /** The credentials, sealed to this worker's boot; empty: none. */
  readonly sealedCredentials: string;
  readonly sealContext: SealContext;
  readonly absentReason: string;
}

export interface AccessDependencies {
  readonly bootKey: BootKey;
  readonly registry: RegistryClient;
  readonly grants: AccessGrants;
}

/** Tells the container's events. */
export type EventSink = (kind: string, message: string, fields?: Record<string, string>) => void;

/** An image's place in its registry, with the credentials to get at it. */
export interface OpenedAccess {
  readonly source: BlobSource;
  /**
   * Resolves when the registry says that these credentials may have the image, or said so a while ago. `anew`: it is
   * asked in any case.
   */
  prove(signal: AbortSignal, anew?: boolean): Promise<void>;
}

/**
 * Opens a request's credentials. No credential, a credential, and a credential that failed are three things: without one
 * the registry is asked anonymously; with one, a refusal is final, by name, and nothing else is tried.
 * @throws SecretError, CredentialError
 */
export async function openAccess(
  dependencies: AccessDependencies,
  access: ImageAccess,
  onEvent: EventSink,
): Promise<OpenedAccess> {
  const { registry, grants } = dependencies;
  const { workspaceId, manifestDigest } = access;
  const reference = parseReference(access.imageReference);
  const provider = await openProvider(dependencies, access, reference.registry, onEvent);
  const repository = registry.repository(reference, provider);
  const grant = {
    workspaceId,
    repository: `${reference.registry}/${reference.repository}`,
    manifestDigest,
    fingerprint: provider.fingerprint,
  };
  return {
    source: blobSource(repository),
    async prove(signal, anew = false) {
      if (anew) grants.forget(grant);
      await grants.prove(grant, () => repository.headManifest(manifestDigest, signal));
    },
  };
}

async function openProvider(
  { bootKey, registry: client }: AccessDependencies,
  access: ImageAccess,
  registry: string,
  onEvent: EventSink,
): Promise<CredentialProvider> {
  const about = { container: access.containerId, registry };
  if (access.sealedCredentials === "") {
    if (access.absentReason !== "") {
      onEvent("credential", `${access.absentReason}: going on without credentials`);
      log.warn("the request's credentials are missing: going on without", {
        ...about,
        reason: access.absentReason,
      });
    }
    return anonymousProvider(registry);
  }
  const credential = unmarshalCredentials(await bootKey.open(access.sealedCredentials, access.sealContext));
  const provider = createProvider(credential, { fetch: client.issuerFetch });
  onEvent("credential", `using the request's ${provider.type} credential for ${provider.registry}`);
  log.info("using credential provider from request for OCI image mount", { ...about, type: provider.type });
  return provider;
}
