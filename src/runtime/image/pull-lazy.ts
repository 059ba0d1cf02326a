import type { LazyImage } from "../../mount/lazy-image.ts";
import type { EventSink, ImageAccess, ImageUser } from "./image-access.ts";
import { ImageLease, type LeaseDependencies } from "./image-lease.ts";
import {
  beginMounting,
  type MountDependencies,
  type MountedContainerImage,
  type MountRequest,
} from "./image-mounting.ts";
import type { PreparedMounts } from "./prepared-mounts.ts";

export interface PullDependencies extends LeaseDependencies, MountDependencies {
  readonly prepared: PreparedMounts;
}

export interface PullRequest extends ImageAccess, ImageUser, MountRequest {
  readonly containerId: string;
  readonly workspaceId: string;
  readonly manifestDigest: string;
}

export interface PulledImage extends MountedContainerImage {
  /** To be ended with the container, after the image was released. */
  readonly lease: ImageLease;
}

/**
 * Makes an image's tree appear without fetching it: opens the request's credentials, proves access with them, and
 * mounts by the index, or goes on with what was prepared; bytes come when they are read.
 *
 * @throws SecretError, CredentialError, RegistryError, IndexError, MountError
 */
export async function pullLazy(
  dependencies: PullDependencies,
  request: PullRequest,
  onEvent: EventSink,
  signal: AbortSignal,
): Promise<PulledImage> {
  const mounting = dependencies.prepared.take(request) ?? beginMounting(dependencies, request);
  let pulled: MountedContainerImage | undefined;
  let lease: ImageLease | undefined;
  try {
    const keptUp = () => pulled?.image.stats().complete !== true;
    lease = await ImageLease.open(dependencies, request, request, onEvent, keptUp);
    mounting.provide(lease.source);
    await lease.prove(signal);
    onEvent("access", "access to the image is proved");
    pulled = await mounting.mounted(signal);
    pulled.image.replaceSource(lease.source);
    lease.warm();
    return { ...pulled, lease };
  } catch (error) {
    await mounting.abandon();
    lease?.end();
    throw error;
  }
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
