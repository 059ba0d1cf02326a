import type { IndexStore } from "../index/store.ts";
import type { TraceKey } from "../index/trace-store.ts";
import type { LazyImage } from "../mount/lazy-image.ts";
import type { LazyMounts } from "../mount/lazy-mount.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { type ImageConfig, parseImageConfig } from "../registry/image-config.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import {
  type AccessDependencies,
  type EventSink,
  type ImageAccess,
  type ImageUser,
  openAccess,
} from "./image-access.ts";
import { RefreshingSource } from "./refreshing-source.ts";

const log = logger("worker");
const proofTimeoutMs = 15_000;

export interface PullDependencies extends AccessDependencies {
  readonly index: IndexStore;
  readonly mounts: LazyMounts;
  /** The access to a container's image as it is now, asked of the scheduler. */
  readonly freshAccess: (container: ImageUser) => Promise<ImageAccess>;
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
  const access = await openAccess(dependencies, request, onEvent);
  const [index, trace] = await Promise.all([
    dependencies.index.openImage(request.manifestDigest, request.indexSha256),
    dependencies.traces ? dependencies.index.traces.read(traceKey(request)) : undefined,
  ]);
  const source = new RefreshingSource(access.source, () => freshSource(dependencies, request, onEvent));
  const mounting = dependencies.mounts.acquire({
    workspace: request.workspaceId,
    index,
    source,
    trace,
    takeNotes: dependencies.traces,
    bringAll: dependencies.backgroundFetch,
    background: dependencies.backgroundFetch,
    eager: request.eager,
    signal,
  });
  mounting.catch(() => undefined);
  try {
    await access.prove(signal);
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

/**
 * Lets a mount that outlived the process before this one fetch again: with the first read it asks the scheduler for the
 * credentials that are right now.
 */
export function resupply(
  dependencies: PullDependencies,
  user: ImageUser,
  image: Pick<LazyImage, "replaceSource" | "startBackground">,
  onEvent: EventSink,
): void {
  image.replaceSource(new RefreshingSource(undefined, () => freshSource(dependencies, user, onEvent)));
  if (dependencies.backgroundFetch) image.startBackground();
}

/** The image's bytes by its credentials as they are now, which have proved themselves. */
async function freshSource(
  dependencies: PullDependencies,
  user: ImageUser,
  onEvent: EventSink,
): Promise<BlobSource> {
  const { containerId: container, manifestDigest } = user;
  try {
    const access = await openAccess(dependencies, await dependencies.freshAccess(user), onEvent);
    await access.prove(AbortSignal.timeout(proofTimeoutMs), true);
    log.info("going on with the image's credentials as they are now", { container, manifestDigest });
    return access.source;
  } catch (error) {
    log.warn("no new credentials for an image", { container, manifestDigest, error: messageOf(error) });
    throw error;
  }
}
