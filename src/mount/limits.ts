/** How much a mount may ask of the link and of memory. Every figure is per mount. */
export interface FetchLimits {
  /** Compressed bytes of one ranged request at most (a single span may be larger). */
  readonly rangeBytes: number;
  /** Compressed bytes asked for on behalf of readers and not yet inflated, at most. */
  readonly inFlightBytes: number;
  /** Requests at once that readers wait for or that read ahead of them. */
  readonly demandConnections: number;
  /** Requests at once for what earlier starts read, beside those of readers. */
  readonly traceConnections: number;
  /** Requests at once that complete layers in the background. */
  readonly backgroundConnections: number;
  /** Requests at once of an eager mount, before anything reads. */
  readonly eagerConnections: number;
  /** Spans that a sequential reader is served ahead at most. */
  readonly readAheadSpans: number;
  /**
   * From the first reader's miss to its bytes or its error; for a whole-layer stream: between two
   * chunks. The engine ends a read that waits for {@link deadlineGraceMs} more, whatever has become of its request.
   */
  readonly deadlineMs: number;
  /** How long no reader may have waited before the background goes on. */
  readonly idleMs: number;
}

/** How much longer than its request a read may wait: for its bytes to be inflated, or its error to be told. */
export const deadlineGraceMs = 1_000;

const MiB = 1024 * 1024;

export const defaultFetchLimits: FetchLimits = {
  rangeBytes: 8 * MiB,
  inFlightBytes: 64 * MiB,
  demandConnections: 8,
  traceConnections: 6,
  backgroundConnections: 2,
  eagerConnections: 6,
  readAheadSpans: 24,
  deadlineMs: 30_000,
  idleMs: 2_000,
};
