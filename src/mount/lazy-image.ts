import type { StartTrace } from "../index/trace.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import type { MountError } from "./error.ts";
import type { MountedImage, MountStats } from "./mounted-image.ts";
import type { SharedMount } from "./shared-mount.ts";

/** One user's hold on a mounted image. */
export interface LazyImage {
  /** The mounted EROFS tree, read-only. */
  readonly root: string;
  /** Resolves with the first error that a reader of the mount got, for the container's events; never rejects. */
  readonly failure: Promise<MountError>;
  stats(): MountStats;
  /** From the next request on, this user's bytes come from another source: his first, or in place of the one before. */
  replaceSource(source: BlobSource): void;
  /** Completes the layers while no reader waits; does nothing when that is under way or done. */
  startBackground(): void;
  /**
   * What was read since the mount was opened, in order. `undefined` unless notes were asked for (`AcquireOptions.takeNotes`),
   * and for those who joined a mount: what others read before, the kernel gives them from its memory, and nobody sees it.
   */
  readSoFar(): StartTrace | undefined;
  /** Takes note no more. */
  endNotes(): void;
  /**
   * Gives the mount up; the last user's release unmounts it. Overlays on it must be unmounted before. Idempotent.
   * @throws MountError `busy` when something still uses the tree: the mount stays, release may be tried again
   */
  release(): Promise<void>;
}

/**
 * A hold for somebody who has joined.
 * @param opened whether the mount was made for this user
 * @param source what the mount has of this user's already
 */
export function lease(
  shared: SharedMount,
  image: MountedImage,
  opened: boolean,
  source?: BlobSource,
): LazyImage {
  let own = source;
  let released: Promise<void> | undefined;
  const release = async () => {
    if (own !== undefined) image.withdrawSource(own);
    own = undefined;
    try {
      await shared.leave();
    } catch (thrown) {
      released = undefined;
      throw thrown;
    }
  };
  return {
    root: image.root,
    failure: image.failure,
    stats: () => image.stats(),
    replaceSource: (source) => {
      image.replaceSource(source, own);
      own = source;
    },
    startBackground: () => image.startBackground(),
    readSoFar: () => (opened ? image.readSoFar() : undefined),
    endNotes: () => {
      if (opened) image.endNotes();
    },
    release: () => (released ??= release()),
  };
}
