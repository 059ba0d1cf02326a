import type { CredentialProvider } from "../credential/provider.ts";
import type { Platform } from "../reference/platform.ts";
import type { Reference } from "../reference/reference.ts";
import type { BlobSource, BlobSourceStats, ReadOptions } from "./blob-source.ts";
import type { Descriptor } from "./descriptor.ts";
import type { ImageConfig } from "./image-config.ts";
import type { PullLimit } from "./pull-limit.ts";

/** An image for one platform, with everything about it verified but the layers' bytes. */
export interface ResolvedImage {
  readonly manifest: Descriptor;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly manifestBytes: Uint8Array;
  /** The bytes of `config`, whose meaning is `imageConfig`. */
  readonly configBytes: Uint8Array;
  readonly imageConfig: ImageConfig;
}

/** One repository, asked with one credential. All methods throw RegistryError. */
export interface Repository {
  readonly reference: Reference;
  readonly provider: CredentialProvider;
  /** Whether blobs may come from mirrors, which do not ask for the credential. */
  readonly mirrored: boolean;
  /** What a tag or digest points to, without its body; proves that the credential may pull. */
  headManifest(tagOrDigest: string, signal: AbortSignal): Promise<Descriptor>;
  /** The reference's image for a platform: index → manifest → config, each verified. */
  resolve(platform: Platform, signal: AbortSignal): Promise<ResolvedImage>;
  /** A whole small blob, verified. `sizeBytesMax` defaults to 8 MiB. */
  blob(descriptor: Descriptor, signal: AbortSignal, sizeBytesMax?: number): Promise<Uint8Array>;
  /** Exactly the bytes from `start` to `end` (exclusive); `range_unsupported` when the registry sends the whole. */
  openBlob(
    descriptor: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options?: ReadOptions,
  ): Promise<Uint8Array>;
  /** The blob from `start` to its end, resumed after breaks; from 0 its digest is verified at the end. */
  streamBlob(descriptor: Descriptor, start: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /**
   * Whether the registry itself, never a mirror, says to this credential that the repository has the blob. False also for
   * one that does not say.
   */
  hasBlob(descriptor: Descriptor, signal: AbortSignal): Promise<boolean>;
  /** Bytes of the blob that were given out are not the right ones: it comes from no mirror any more. */
  doubtBlob(descriptor: Descriptor): void;
  /** Requests made and blob bytes received so far for this repository with this credential. */
  traffic(): BlobSourceStats;
  /** What the registry said last of how often it may still be asked for manifests (Docker Hub). */
  pullLimit(): PullLimit | undefined;
  /** Whether a request that carried the credential, or what was got with it, was answered well: it is a good one. */
  tookCredential(): boolean;
}

/** The layers of a repository, for the rooms that read them. Counts what is asked for from now on. */
export function blobSource(repository: Repository): BlobSource {
  const before = repository.traffic();
  return {
    read: (layer, start, end, signal, options) => repository.openBlob(layer, start, end, signal, options),
    stream: (layer, start, signal) => repository.streamBlob(layer, start, signal),
    doubt: (layer) => repository.doubtBlob(layer),
    stats: () => {
      const now = repository.traffic();
      return { requests: now.requests - before.requests, bytes: now.bytes - before.bytes };
    },
  };
}

/**
 * The same, for those to whom a layer proves what the credential may: bytes that came from a mirror say nothing of that, so
 * the registry is asked first, or they come from it.
 */
export function provedBlobSource(repository: Repository): BlobSource {
  const source = blobSource(repository);
  if (!repository.mirrored) return source;
  return {
    ...source,
    async *stream(layer, start, signal) {
      if (!(await repository.hasBlob(layer, signal))) repository.doubtBlob(layer);
      yield* source.stream(layer, start, signal);
    },
  };
}
