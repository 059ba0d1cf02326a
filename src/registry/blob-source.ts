import type { Descriptor } from "./descriptor.ts";

/** Where the bytes of layers come from. The mount and the index read through it and know nothing of registries. */
export interface BlobSource {
  /**
   * The bytes `start` (inclusive) to `end` (exclusive) of a layer as stored, exactly `end - start` of them.
   * @throws RegistryError; `range_unsupported` means that only {@link BlobSource.stream} will do
   */
  read(
    layer: Descriptor,
    start: number,
    end: number,
    signal: AbortSignal,
    options?: ReadOptions,
  ): Promise<Uint8Array>;
  /**
   * The layer from `start` to its end, in order, resumed over broken connections. From 0 the whole is verified against
   * the digest: a mismatch throws `digest_mismatch` after the last chunk, before the end.
   */
  stream(layer: Descriptor, start: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Bytes of the layer were wrong: whoever gave them, if there is a choice, is not asked for it again. */
  doubt?(layer: Descriptor): void;
  /** What was asked for and received so far, through this source. */
  stats(): BlobSourceStats;
}

export interface ReadOptions {
  /** Nobody waits for it: others go first. */
  readonly background?: boolean;
  /**
   * Hears of bytes as they come: how many more stand in `into`, one after another from its beginning. They stay as they
   * are. A source that begins anew, with another place, hands over another buffer.
   */
  readonly onBytes?: (count: number, into: Uint8Array) => void;
}

export interface BlobSourceStats {
  readonly requests: number;
  readonly bytes: number;
}
