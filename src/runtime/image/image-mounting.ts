import type { IndexStore } from "../../index/store.ts";
import type { TraceKey } from "../../index/trace-store.ts";
import { AwaitedSource } from "../../mount/awaited-source.ts";
import { MountError } from "../../mount/error.ts";
import type { LazyImage } from "../../mount/lazy-image.ts";
import type { LazyMounts } from "../../mount/lazy-mount.ts";
import type { BlobSource } from "../../registry/blob-source.ts";
import { type ImageConfig, parseImageConfig } from "../../registry/image-config.ts";
import { messageOf } from "../../std/error.ts";
import { logger } from "../../std/log.ts";
import { waitFor } from "../../std/wait.ts";

const log = logger("worker");

export interface MountDependencies {
  readonly index: IndexStore;
  readonly mounts: LazyMounts;
  /** Whether the rest of an image is fetched while its containers run. */
  readonly backgroundFetch: boolean;
  /** Whether what starts read is recorded, and fetched ahead for the next. */
  readonly traces: boolean;
}

/** Which image, of whom, for what. */
export interface MountRequest {
  readonly workspaceId: string;
  readonly manifestDigest: string;
  readonly indexSha256: string;
  /** Empty: the image's own. */
  readonly command: readonly string[];
  readonly eager: boolean;
}

export interface MountedContainerImage {
  readonly image: LazyImage;
  readonly config: ImageConfig;
}

/** An image on its way to being mounted, before it is known with which credential its bytes are to be had. */
export interface ImageMounting {
  /** From here come the bytes. Nobody reads the image before access to it is proved. */
  provide(source: BlobSource): void;
  /** @throws IndexError, MountError; the signal's reason */
  mounted(signal: AbortSignal): Promise<MountedContainerImage>;
  /** Gives it up, also when it is mounted by now. Never rejects. */
  abandon(): Promise<void>;
}

/** Begins to mount an image by its index: its tree needs no byte of the registry. */
export function beginMounting(dependencies: MountDependencies, request: MountRequest): ImageMounting {
  const source = new AwaitedSource();
  const abandoned = new AbortController();
  const mounting = mount(dependencies, request, source, abandoned.signal);
  mounting.catch(() => undefined);
  return {
    provide: (provided) => source.provide(provided),
    mounted: (signal) => waitFor(mounting, signal),
    async abandon() {
      abandoned.abort();
      const { image } = await mounting.catch(() => ({ image: undefined }));
      image?.endNotes();
      const released = image?.release().catch((error: unknown) => {
        log.error("an image that nobody uses could not be unmounted", { error: messageOf(error) });
      });
      // Not before it is this user's no more: then what waited goes on with another's.
      source.withdraw(new MountError("cancelled", "nobody brought a credential for this image"));
      await released;
    },
  };
}

async function mount(
  { index: store, mounts, backgroundFetch, traces }: MountDependencies,
  request: MountRequest,
  source: AwaitedSource,
  signal: AbortSignal,
): Promise<MountedContainerImage> {
  const [index, trace] = await Promise.all([
    store.openImage(request.manifestDigest, request.indexSha256),
    traces ? store.traces.read(traceKey(request)) : undefined,
  ]);
  // Before there is a mount to give back.
  const config = parseImageConfig(JSON.parse(index.index.imageConfig));
  // It begins with its bytes: who joined it before there is a credential would wait for that.
  if (request.eager) await waitFor(source.settled, signal);
  const image = await mounts.acquire({
    workspace: request.workspaceId,
    index,
    source,
    trace,
    takeNotes: traces,
    bringAll: backgroundFetch,
    background: backgroundFetch,
    eager: request.eager,
    signal,
  });
  // Also where it joined: the one who opened the mount may give it up first.
  image.replaceSource(source);
  return { image, config };
}

/** Under which traces of a request's starts are kept. */
export function traceKey({ workspaceId, manifestDigest, command }: MountRequest): TraceKey {
  return { workspace: workspaceId, manifestDigest, argv: command };
}
