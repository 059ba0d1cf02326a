import type { StartTrace, Trace } from "../index/trace.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import type { MountError } from "./error.ts";

export interface MountStats {
  /** Compressed bytes that this mount received, and the requests that it took; 0 when all was in the cache. */
  readonly fetchedBytes: number;
  readonly requests: number;
  /** Spans of all layers that are in the cache, whoever brought them. */
  readonly spansPresent: number;
  readonly spansTotal: number;
  /** What all layers of the image weigh as the registry stores them. */
  readonly compressedBytes: number;
  readonly complete: boolean;
}

/** A mount that its users share: made by this process, or taken over from a predecessor. */
export interface MountedImage {
  readonly root: string;
  readonly workspace: string;
  readonly manifestDigest: string;
  /** How EROFS reads its files. */
  readonly transport: string;
  /** Whether this process must live for the tree to be read. */
  readonly servedByProcess: boolean;
  /** Resolves with the first error that a reader got; never rejects. */
  readonly failure: Promise<MountError>;
  stats(): MountStats;
  /** From the next request on, a user's bytes come from another source than before; who had none is a new user. */
  replaceSource(source: BlobSource, before?: BlobSource): void;
  /** A user's source serves before the others'. */
  leadSource(source: BlobSource): void;
  /** A user has left: the others' sources serve. */
  withdrawSource(source: BlobSource): void;
  /** Resolves when all layers are in the cache. @throws MountError */
  complete(onProgress: ((stats: MountStats) => void) | undefined, signal: AbortSignal): Promise<void>;
  /** Fetches what earlier starts of a program read; returns at once. */
  prefetch(trace: Trace): void;
  /** What was read since the mount was opened; `undefined` when nobody took note. */
  readSoFar(): StartTrace | undefined;
  /** Takes note no more. */
  endNotes(): void;
  /** Completes the layers while no reader waits; does nothing when that is under way. */
  startBackground(): void;
  /** Unmounts and removes. @throws MountError `busy`: the mount is then as before */
  close(): Promise<void>;
  /** The process ends: a mount that needs it is taken away from whoever still uses it; another is left as it is. */
  detach(): Promise<void>;
}
