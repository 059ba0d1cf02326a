import type { IndexStore } from "../index/store.ts";
import type { TraceKey } from "../index/trace-store.ts";
import type { LazyImage } from "../mount/lazy-image.ts";
import type { LazyMounts } from "../mount/lazy-mount.ts";
import { type ImageConfig, parseImageConfig } from "../registry/image-config.ts";
import type { EventSink, ImageAccess, ImageUser } from "./image-access.ts";
import { ImageLease, type LeaseDependencies } from "./image-lease.ts";

export interface PullDependencies extends LeaseDependencies {
  readonly index: IndexStore;
  readonly mounts: LazyMounts;
  /** Whether the rest of an image is fetched while its containers run. */
  readonly backgroundFetch: boolean;
  /** Whether what starts read is recorded, and fetched ahead for the next. */
  readonly traces: boolean;
}

export interface PullRequest extends ImageAccess, ImageUser {
  readonly containerId: string;
  readonly workspaceId: string;
  readonly manifestDigest: string;
  readonly indexSha256: string;
  /** Empty: the image's own. */
  readonly command: readonly string[];
  readonly eager: boolean;
}

export interface PulledImage {
  readonly image: LazyImage;
  readonly config: ImageConfig;
  /** To be ended with the container, after the image was released. */
  readonly lease: ImageLease;
}

/**
 * Makes an image's tree appear without fetching it: opens the request's credentials, proves access with them, and
 * mounts by the index; bytes come when they are read.
 *
 * @throws SecretError, CredentialError, RegistryError, IndexError, MountError
 */
export async function pullLazy(
  dependencies: PullDependencies,
  request: PullRequest,
  onEvent: EventSink,
  signal: AbortSignal,
): Promise<PulledImage> {
  let image: LazyImage | undefined;
  const lease = await ImageLease.open(
    dependencies,
    request,
    request,
    onEvent,
    () => image?.stats().complete !== true,
  );
  let mounting: Promise<LazyImage> | undefined;
  try {
    const [index, trace] = await Promise.all([
      dependencies.index.openImage(request.manifestDigest, request.indexSha256),
      dependencies.traces ? dependencies.index.traces.read(traceKey(request)) : undefined,
    ]);
    mounting = dependencies.mounts.acquire({
      workspace: request.workspaceId,
      index,
      source: lease.source,
      trace,
      takeNotes: dependencies.traces,
      bringAll: dependencies.backgroundFetch,
      background: dependencies.backgroundFetch,
      eager: request.eager,
      signal,
    });
    mounting.catch(() => undefined);
    await lease.prove(signal);
    onEvent("access", "access to the image is proved");
    image = await mounting;
    image.replaceSource(lease.source);
    lease.warm();
    return { image, config: parseImageConfig(JSON.parse(index.index.imageConfig)), lease };
  } catch (error) {
    await mounting?.then((mounted) => mounted.release()).catch(() => undefined);
    lease.end();
    throw error;
  }
}

/** Under which traces of a request's starts are kept. */
export function traceKey({ workspaceId, manifestDigest, command }: PullRequest): TraceKey {
  return { workspace: workspaceId, manifestDigest, argv: command };
}

/**
 * Lets a mount that outlived the process before this one fetch again: it asks the scheduler for the credentials that are
 * right now.
 */
export function resupply(
  dependencies: PullDependencies,
  user: ImageUser,
  image: Pick<LazyImage, "replaceSource" | "startBackground" | "stats">,
  onEvent: EventSink,
): ImageLease {
  const lease = ImageLease.resume(dependencies, user, onEvent, () => !image.stats().complete);
  image.replaceSource(lease.source);
  lease.warm();
  if (dependencies.backgroundFetch) image.startBackground();
  return lease;
}
