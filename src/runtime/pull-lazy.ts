import { createProvider } from "../credential/create-provider.ts";
import { unmarshalCredentials } from "../credential/marshal.ts";
import { anonymousProvider, type CredentialProvider } from "../credential/provider.ts";
import type { IndexStore } from "../index/store.ts";
import type { TraceKey } from "../index/trace-store.ts";
import type { LazyImage, LazyMounts } from "../mount/lazy-mount.ts";
import { parseReference, type Reference } from "../reference/reference.ts";
import type { RegistryClient } from "../registry/client.ts";
import { type ImageConfig, parseImageConfig } from "../registry/image-config.ts";
import { blobSource } from "../registry/repository.ts";
import type { BootKey, SealContext } from "../secret/seal.ts";
import { logger } from "../std/log.ts";
import type { AccessGrants } from "./grants.ts";

const log = logger("worker");

export interface PullDependencies {
  readonly bootKey: BootKey;
  readonly registry: RegistryClient;
  readonly index: IndexStore;
  readonly mounts: LazyMounts;
  readonly grants: AccessGrants;
  /** Whether the rest of an image is fetched while its containers run. */
  readonly backgroundFetch: boolean;
  /** Whether what starts read is recorded, and fetched ahead for the next. */
  readonly traces: boolean;
}

export interface PullRequest {
  readonly containerId: string;
  readonly workspaceId: string;
  /** `registry/repository@digest`. */
  readonly imageReference: string;
  readonly manifestDigest: string;
  readonly indexSha256: string;
  /** Empty: the image's own. */
  readonly command: readonly string[];
  /** The credentials, sealed to this worker's boot; empty: none. */
  readonly sealedCredentials: string;
  readonly sealContext: SealContext;
  readonly absentReason: string;
  readonly eager: boolean;
}

/** Tells the container's events. */
export type EventSink = (kind: string, message: string, fields?: Record<string, string>) => void;

export interface PulledImage {
  readonly image: LazyImage;
  readonly config: ImageConfig;
}

/**
 * Makes an image's tree appear without fetching it: opens the request's credentials, proves access with them, and
 * mounts by the index; bytes come when they are read.
 *
 * No credential, a credential, and a credential that failed are three things: without one the registry is asked
 * anonymously; with one, a refusal ends the run, by name, and nothing else is tried.
 *
 * @throws SecretError, CredentialError, RegistryError, IndexError, MountError
 */
export async function pullLazy(
  dependencies: PullDependencies,
  request: PullRequest,
  onEvent: EventSink,
  signal: AbortSignal,
): Promise<PulledImage> {
  const reference = parseReference(request.imageReference);
  const provider = await openProvider(dependencies, request, reference, onEvent);
  const repository = dependencies.registry.repository(reference, provider);
  const [index, trace] = await Promise.all([
    dependencies.index.openImage(request.manifestDigest, request.indexSha256),
    dependencies.traces ? dependencies.index.traces.read(traceKey(request)) : undefined,
  ]);
  const source = blobSource(repository);
  const mounting = dependencies.mounts.acquire({
    workspace: request.workspaceId,
    index,
    source,
    trace,
    takeNotes: dependencies.traces,
    background: dependencies.backgroundFetch,
    eager: request.eager,
    signal,
  });
  mounting.catch(() => undefined);
  try {
    await dependencies.grants.prove(
      {
        workspaceId: request.workspaceId,
        repository: `${reference.registry}/${reference.repository}`,
        manifestDigest: request.manifestDigest,
        fingerprint: provider.fingerprint,
      },
      () => repository.headManifest(request.manifestDigest, signal),
    );
    onEvent("access", "access to the image is proved");
    const image = await mounting;
    image.replaceSource(source);
    return { image, config: parseImageConfig(JSON.parse(index.index.imageConfig)) };
  } catch (error) {
    await mounting.then((image) => image.release()).catch(() => undefined);
    throw error;
  }
}

/** Under which traces of a request's starts are kept. */
export function traceKey({ workspaceId, manifestDigest, command }: PullRequest): TraceKey {
  return { workspace: workspaceId, manifestDigest, argv: command };
}

async function openProvider(
  { bootKey }: PullDependencies,
  request: PullRequest,
  reference: Reference,
  onEvent: EventSink,
): Promise<CredentialProvider> {
  const about = { container: request.containerId, registry: reference.registry };
  if (request.sealedCredentials === "") {
    if (request.absentReason !== "") {
      onEvent("credential", `${request.absentReason}: going on without credentials`);
      log.warn("the request's credentials are missing: going on without", {
        ...about,
        reason: request.absentReason,
      });
    }
    return anonymousProvider(reference.registry);
  }
  const credential = unmarshalCredentials(await bootKey.open(request.sealedCredentials, request.sealContext));
  const provider = createProvider(credential);
  onEvent("credential", `using the request's ${provider.type} credential for ${provider.registry}`);
  log.info("using credential provider from request for OCI image mount", { ...about, type: provider.type });
  return provider;
}
