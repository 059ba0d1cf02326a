import type { Engine, FillResult } from "../native/engine.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { logger } from "../std/log.ts";
import type { BackgroundBudget } from "./background-budget.ts";
import { DemandLanes } from "./demand-lanes.ts";
import { readErrno, toMountError } from "./errno.ts";
import type { MountError } from "./error.ts";
import { notInflatable, wrongBytes } from "./failure.ts";
import type { FetchOutcome, LayerFetch, RunFetch } from "./layer-fetch.ts";
import { LayerStream } from "./layer-stream.ts";
import type { FetchLimits } from "./limits.ts";
import { MissRate } from "./miss-rate.ts";
import { RangeFill } from "./range-fill.ts";
import type { Stretch } from "./sequence.ts";
import { SourceRequests } from "./source-requests.ts";
import { runRange, type SpanRun } from "./span-run.ts";

const aheadMax = 64;

interface Stream {
  readonly layer: LayerFetch;
  readonly ended: PromiseWithResolvers<FetchOutcome>;
}

/**
 * Brings the spans of one mount's layers: what readers wait for first, in as few requests as the layers' geometry allows,
 * one request per span however many wait. Every request ends within its deadline; readers then get bytes or an errno,
 * never a part. Misses come from the engine, results go to it; nothing here touches a file.
 */
export class Fetcher {
  readonly #engine: Engine;
  readonly #limits: FetchLimits;
  readonly #budget: BackgroundBudget;
  readonly #requests: SourceRequests;
  readonly #onFailure: (error: MountError) => void;
  readonly #onKept: (bytes: number) => void;
  /** Misses in order of arrival, and stretches to read ahead, which come after. */
  readonly #queue: { readonly layer: LayerFetch; readonly span: number }[] = [];
  readonly #ahead: (Stretch & { readonly layer: LayerFetch })[] = [];
  readonly #streams: Stream[] = [];
  readonly #running = new Set<Promise<unknown>>();
  readonly #missRate = new MissRate();
  #pumpScheduled = false;
  readonly #lanes: DemandLanes;
  #activeStreams = 0;
  readonly #told = new WeakSet<MountError>();
  #closed: MountError | undefined;
  #noSpaceLogged = false;

  constructor(options: {
    readonly engine: Engine;
    readonly source: BlobSource;
    readonly limits: FetchLimits;
    /** Hears when readers wait. */
    readonly budget: BackgroundBudget;
    /** Called for each error that a reader got, not for those of the background. */
    readonly onFailure: (error: MountError) => void;
    /** Called with the (inflated) bytes that went into the cache. */
    readonly onKept: (bytes: number) => void;
  }) {
    this.#engine = options.engine;
    this.#limits = options.limits;
    this.#budget = options.budget;
    this.#requests = new SourceRequests(options.source, options.limits);
    this.#lanes = new DemandLanes(options.limits, () => this.#schedulePump());
    this.#onFailure = options.onFailure;
    this.#onKept = options.onKept;
  }

  /** From the next request on, a user's bytes come from another source than before; who had none is a new user. */
  replaceSource(source: BlobSource, before?: BlobSource): void {
    this.#requests.replaceSource(source, before);
  }

  leadSource(source: BlobSource): void {
    this.#requests.leadSource(source);
  }

  withdrawSource(source: BlobSource): void {
    this.#requests.withdrawSource(source);
  }

  /** Resolves when some user's source serves; `undefined`: one does. */
  get supplied(): Promise<void> | undefined {
    return this.#requests.supplied;
  }

  /** Compressed bytes received for this mount, and the requests that it took. */
  stats(): { readonly fetchedBytes: number; readonly requests: number } {
    return { fetchedBytes: this.#requests.bytes, requests: this.#requests.count };
  }

  /** A reader waits for a span. Called from the engine's doorbell: returns at once. */
  miss(layer: LayerFetch, span: number): void {
    if (this.#closed !== undefined) {
      this.#engine.fail(layer.blob, span, readErrno(this.#closed));
      return;
    }
    if (layer.blob.isPresent(span) || layer.waiting.has(span)) return;
    const refusal = layer.missed(span);
    if (refusal !== undefined) {
      this.#engine.fail(layer.blob, span, readErrno(refusal));
      this.#tell(refusal);
      return;
    }
    const running = layer.inFlight.get(span);
    if (running !== undefined) {
      (span < running.filling.next ? running.late : running.demanded).add(span);
      this.#readAhead(layer, span);
    } else {
      layer.waiting.add(span);
      this.#enqueue(layer, span);
    }
    this.#schedulePump();
  }

  /** Fetches a run that no reader waits for (yet). Never throws; readers who come meanwhile are answered. */
  fetchRun(layer: LayerFetch, run: SpanRun, onBytes?: () => void): Promise<FetchOutcome> {
    const filling = new RangeFill(this.#engine, layer.blob, run);
    return this.#track(this.#fetch(layer.begin(run, filling), onBytes));
  }

  /** Waits for the stream of a {@link LayerFetch.whole} layer, which is started when none is under way. Never throws. */
  fetchWhole(layer: LayerFetch): Promise<FetchOutcome> {
    if (this.#closed !== undefined) return Promise.resolve({ error: this.#closed, noSpace: false });
    if (layer.stream === undefined) {
      const ended = Promise.withResolvers<FetchOutcome>();
      layer.stream = ended.promise;
      this.#streams.push({ layer, ended });
      this.#schedulePump();
    }
    return layer.stream;
  }

  /**
   * Ends every request and answers every reader, now and from now on, with an errno. Resolves when nothing of this
   * fetcher runs any more.
   */
  async close(reason: MountError): Promise<void> {
    this.#closed ??= reason;
    this.#requests.close(reason);
    this.#ahead.length = 0;
    for (const { layer } of this.#queue.splice(0)) this.#failWaiting(layer, reason);
    for (const { layer, ended } of this.#streams.splice(0)) {
      this.#failWaiting(layer, reason);
      layer.stream = undefined;
      ended.resolve({ error: reason, noSpace: false });
    }
    while (this.#running.size > 0) await Promise.allSettled([...this.#running]);
  }

  #enqueue(layer: LayerFetch, span: number): void {
    if (layer.whole) void this.fetchWhole(layer);
    else this.#queue.push({ layer, span });
  }

  #schedulePump(): void {
    if (this.#pumpScheduled) return;
    this.#pumpScheduled = true;
    // The misses of one turn of the doorbell are planned together, so that neighbours share a request.
    queueMicrotask(() => {
      this.#pumpScheduled = false;
      if (this.#closed !== undefined) return;
      this.#startStreams();
      this.#startReads();
      this.#startReadAhead();
    });
  }

  #startStreams(): void {
    while (this.#activeStreams < this.#limits.demandConnections) {
      const next = this.#streams.shift();
      if (next === undefined) return;
      void this.#track(this.#runStream(next));
    }
  }

  #readAhead(layer: LayerFetch, span: number): void {
    const stretch = layer.sequence.reached(span);
    if (stretch !== undefined && this.#ahead.length < aheadMax) this.#ahead.push({ layer, ...stretch });
  }

  #startReads(): void {
    while (this.#lanes.free > 0) {
      const next = this.#queue[0];
      if (next === undefined) return;
      if (next.layer.waiting.has(next.span)) {
        if (!this.#lanes.hasRoom) return;
        if (next.layer.whole) void this.fetchWhole(next.layer);
        else {
          const { layer, span } = next;
          const ahead = this.#missRate.missed(layer, span);
          this.#startRead(layer, layer.demandRun(span, this.#limits.rangeBytes, ahead));
          this.#readAhead(layer, span);
        }
      }
      this.#queue.shift();
    }
  }

  #startReadAhead(): void {
    // One connection stays free for a reader's next miss.
    while (this.#lanes.free > 1 && this.#lanes.hasRoom) {
      const next = this.#ahead.shift();
      if (next === undefined) return;
      const { layer, from, spans } = next;
      const run = layer.missingRun(from, this.#limits.rangeBytes, spans);
      if (run === undefined || run.first >= from + spans) continue;
      this.#startRead(layer, run);
      const left = from + spans - (run.last + 1);
      if (left > 0) this.#ahead.unshift({ layer, from: run.last + 1, spans: left });
    }
  }

  #startRead(layer: LayerFetch, run: SpanRun): void {
    const { start, end } = runRange(layer.blob, run);
    const lane = this.#lanes.take(end - start);
    const done = this.#budget.readersWait();
    void this.fetchRun(layer, run, lane.heard).finally(() => {
      done();
      lane.leave();
    });
  }

  async #fetch(fetch: RunFetch, onBytes: (() => void) | undefined): Promise<FetchOutcome> {
    const { layer, run, demanded, filling } = fetch;
    try {
      const { start, end } = runRange(layer.blob, run);
      const bytes = await this.#requests.read(layer.descriptor, start, end, {
        waitedMs: layer.waitedMs(demanded),
        background: onBytes === undefined && demanded.size === 0,
        onBytes: (count, into) => {
          onBytes?.();
          filling.received(count, into);
        },
      });
      return this.#settle(fetch, await filling.finish(bytes));
    } catch (thrown) {
      filling.end();
      // What came before it broke is as good as any: its readers have it.
      this.#settle(fetch, await filling.soFar().catch(() => []));
      return this.#readFailed(fetch, thrown);
    } finally {
      layer.end(fetch);
      // Who is still here waits for a second try, or for the stream that takes the place of ranges.
      for (const span of [...fetch.demanded, ...fetch.late]) this.miss(layer, span);
    }
  }

  #settle(fetch: RunFetch, fills: readonly FillResult[]): FetchOutcome {
    const { layer, run } = fetch;
    let error: MountError | undefined;
    let noSpace = false;
    for (const [index, fill] of fills.entries()) {
      const span = run.first + index;
      const wrong = fill.status === "digest_mismatch" || fill.status === "inflate_error";
      noSpace ||= fill.status === "no_space";
      if (wrong) this.#requests.doubt(layer.descriptor);
      if (wrong && !layer.suspects.delete(span)) {
        layer.suspects.add(span);
      } else if (wrong) {
        const { digest } = layer.descriptor;
        error = fill.status === "inflate_error" ? notInflatable(digest, span) : wrongBytes(digest, span);
        layer.refused(span, error);
        this.#engine.fail(layer.blob, span, readErrno(error));
        const late = fetch.late.delete(span);
        if (fetch.demanded.delete(span) || late) this.#tell(error);
      } else {
        layer.served(span);
        fetch.demanded.delete(span);
        if (fill.status === "present") this.#onKept(layer.blob.span(span).tarLength);
      }
    }
    if (noSpace) this.#logNoSpace(layer);
    return { error, noSpace };
  }

  #readFailed(fetch: RunFetch, thrown: unknown): FetchOutcome {
    const { layer, run, demanded } = fetch;
    const { digest } = layer.descriptor;
    if (this.#closed === undefined && (thrown as { code?: unknown } | null)?.code === "range_unsupported") {
      if (!layer.whole)
        logger("mount").warning("no ranged reads: the layer comes as a whole", { layer: digest });
      layer.whole = true;
      return { error: undefined, noSpace: false };
    }
    const doing = `reading spans ${run.first} to ${run.last} of layer ${digest}`;
    const error = this.#closed ?? toMountError(thrown, doing, digest);
    for (const span of demanded) this.#failSpan(layer, span, error);
    demanded.clear();
    return { error, noSpace: false };
  }

  async #runStream({ layer, ended }: Stream): Promise<void> {
    this.#activeStreams += 1;
    const done = layer.waiting.size > 0 ? this.#budget.readersWait() : undefined;
    const failed = (_: LayerFetch, span: number, error: MountError) => this.#failSpan(layer, span, error);
    const stream = new LayerStream({ layer, engine: this.#engine, requests: this.#requests, failed });
    const outcome = await stream.run();
    this.#activeStreams -= 1;
    done?.();
    layer.stream = undefined;
    if (outcome.noSpace) this.#logNoSpace(layer);
    ended.resolve(outcome);
    if (this.#closed !== undefined) this.#failWaiting(layer, this.#closed);
    else if (layer.waiting.size > 0) void this.fetchWhole(layer);
    this.#schedulePump();
  }

  #failWaiting(layer: LayerFetch, error: MountError): void {
    for (const span of [...layer.waiting]) this.#failSpan(layer, span, error);
  }

  #failSpan(layer: LayerFetch, span: number, error: MountError): void {
    layer.refused(span, error);
    this.#engine.fail(layer.blob, span, readErrno(error));
    this.#tell(error);
  }

  /** A reader got the error; what was found out ahead of readers is told when the first of them comes to it. */
  #tell(error: MountError): void {
    if (error === this.#closed || this.#told.has(error)) return;
    this.#told.add(error);
    this.#onFailure(error);
  }

  #logNoSpace(layer: LayerFetch): void {
    if (this.#noSpaceLogged) return;
    this.#noSpaceLogged = true;
    logger("mount").warning("no space for the cache: serving without keeping", {
      layer: layer.descriptor.digest,
    });
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#running.add(work);
    void work.then(
      () => this.#running.delete(work),
      () => this.#running.delete(work),
    );
    return work;
  }
}
