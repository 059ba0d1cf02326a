import { spanFile } from "../index/types.ts";
import type { LayerBlob } from "../native/blob.ts";
import type { Descriptor } from "../registry/descriptor.ts";
import type { MountError } from "./error.ts";
import type { FetchLimits } from "./limits.ts";
import type { RangeFill } from "./range-fill.ts";
import { SequenceDetector } from "./sequence.ts";
import { growRun, type SpanRun } from "./span-run.ts";

/** How a request ended, for those who fetch without a reader waiting. */
export interface FetchOutcome {
  readonly error: MountError | undefined;
  /** Bytes came but the cache's disk is full: they are not kept. */
  readonly noSpace: boolean;
}

/** A ranged request under way. */
export interface RunFetch {
  readonly layer: LayerFetch;
  readonly run: SpanRun;
  /** Spans of the run that readers wait for; grows while the request is under way. */
  readonly demanded: Set<number>;
  /**
   * Spans that readers missed when their bytes were with the engine. They may have been answered already, or may have come
   * too late for an answer that is not kept: those are looked at once more at the end.
   */
  readonly late: Set<number>;
  /** Takes the run's bytes on their way; its `next` is the first span whose bytes are not with the engine. */
  readonly filling: RangeFill;
  readonly ended: Promise<void>;
  readonly end: () => void;
}

interface Refusal {
  readonly error: MountError;
  readonly untilMs: number;
}

/**
 * When a read-ahead fails, the kernel asks at once for the page that its reader wants: the second answer must not take
 * as long as the first. Other failures that came quickly are looked into again, but not bytes that were wrong twice: who
 * reads them in a loop would fetch them in a loop.
 */
const slowFailureMs = 1_000;
const refusalMs = 500;

/** What one mount knows of the fetching of one of its layers. No request is made here. */
export class LayerFetch {
  readonly blob: LayerBlob;
  readonly descriptor: Descriptor;
  /** Spans that readers wait for and no ranged request fetches yet. */
  readonly waiting = new Set<number>();
  readonly inFlight = new Map<number, RunFetch>();
  /** Spans whose bytes were wrong once: they are asked for once more before readers get an error. */
  readonly suspects = new Set<number>();
  readonly sequence: SequenceDetector;
  readonly #missedAt = new Map<number, number>();
  readonly #refusals = new Map<number, Refusal>();
  /** No ranges: the layer comes as one stream, because it cannot be entered in the middle or the registry will not. */
  whole: boolean;
  /** The stream under way, which every reader of a {@link whole} layer joins. */
  stream: Promise<FetchOutcome> | undefined;

  readonly spanCount: number;
  /** Where a reader missed last. */
  latestMiss: { readonly span: number; readonly atMs: number } | undefined;
  #closed = false;

  constructor(blob: LayerBlob, descriptor: Descriptor, limits: FetchLimits) {
    this.blob = blob;
    this.descriptor = descriptor;
    this.spanCount = blob.spanCount;
    this.whole = blob.kind === spanFile.kinds.zstdStream;
    this.sequence = new SequenceDetector(limits.readAheadSpans);
  }

  /** The layer is complete and its blob is given up: nothing is asked of it any more. */
  close(): void {
    this.#closed = true;
  }

  get complete(): boolean {
    return this.#closed || this.blob.complete;
  }

  /** Reads through what is there and not proved yet; what was damaged is missing then. */
  async prove(): Promise<void> {
    if (!this.complete) await this.blob.prove();
  }

  get presentCount(): number {
    return this.#closed ? this.spanCount : this.blob.presentCount();
  }

  /** Whether a span is there, or on its way. */
  has(span: number): boolean {
    return !this.fetchable(span);
  }

  fetchable(span: number): boolean {
    return !this.blob.isPresent(span) && !this.inFlight.has(span);
  }

  /** A reader misses the span. An error when it would only be told again, after a long wait, what was found out just now. */
  missed(span: number): MountError | undefined {
    const now = performance.now();
    const refusal = this.#refusals.get(span);
    if (refusal !== undefined && now < refusal.untilMs) return refusal.error;
    this.#refusals.delete(span);
    this.latestMiss = { span, atMs: now };
    if (!this.#missedAt.has(span)) this.#missedAt.set(span, now);
    return undefined;
  }

  /** For how long the readers of some of these spans have waited by now. */
  waitedMs(spans: Iterable<number>): number {
    const now = performance.now();
    let since = now;
    for (const span of spans) since = Math.min(since, this.#missedAt.get(span) ?? now);
    return now - since;
  }

  /** The readers of a span got their bytes. */
  served(span: number): void {
    this.waiting.delete(span);
    this.suspects.delete(span);
    this.#missedAt.delete(span);
  }

  /** The readers of a span get an error. */
  refused(span: number, error: MountError): void {
    const now = performance.now();
    const waitedMs = now - (this.#missedAt.get(span) ?? now);
    this.waiting.delete(span);
    this.#missedAt.delete(span);
    if (waitedMs >= slowFailureMs || error.code === "corrupt_blob")
      this.#refusals.set(span, { error, untilMs: now + refusalMs });
  }

  /**
   * The run to request for a reader's miss, grown over other waiting spans, and ahead: of a sequential reader as far as it
   * has earned, of others by `ahead` spans.
   */
  demandRun(span: number, rangeBytes: number, ahead = 0): SpanRun {
    const window = this.sequence.missed(span);
    const spansMin = window > 1 ? window : 1 + ahead;
    const run = this.#grow(span, spansMin, rangeBytes);
    this.sequence.requested(span, run);
    return run;
  }

  /** The run to request at or after `from`, at most `spans` long; `undefined` when there is nothing left to fetch. */
  missingRun(from: number, rangeBytes: number, spans = Number.MAX_SAFE_INTEGER): SpanRun | undefined {
    let span = this.blob.nextMissing(from);
    while (span >= 0 && this.inFlight.has(span)) span = this.blob.nextMissing(span + 1);
    return span < 0 ? undefined : this.#grow(span, spans, rangeBytes);
  }

  /** Enters a request: takes what waits in its run, so that no other request asks for the same. */
  begin(run: SpanRun, filling: RangeFill): RunFetch {
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    const fetch: RunFetch = {
      layer: this,
      run,
      demanded: new Set(),
      late: new Set(),
      filling,
      ended,
      end,
    };
    for (let span = run.first; span <= run.last; span += 1) {
      this.inFlight.set(span, fetch);
      if (this.waiting.delete(span)) fetch.demanded.add(span);
    }
    return fetch;
  }

  end(fetch: RunFetch): void {
    for (let span = fetch.run.first; span <= fetch.run.last; span += 1) this.inFlight.delete(span);
    fetch.end();
  }

  #grow(span: number, spansMin: number, rangeBytes: number): SpanRun {
    return growRun(this.blob, span, {
      rangeBytes,
      spansMin,
      fetchable: (index) => this.fetchable(index),
      waitedFor: (index) => this.waiting.has(index),
    });
  }
}
