import { setTimeout as wait } from "node:timers/promises";
import { logger } from "../std/log.ts";
import { waitFor } from "../std/wait.ts";
import type { BackgroundBudget } from "./background-budget.ts";
import type { MountError } from "./error.ts";
import { noSpaceFor } from "./failure.ts";
import type { Fetcher } from "./fetcher.ts";
import type { FetchOutcome, LayerFetch } from "./layer-fetch.ts";
import type { FetchLimits } from "./limits.ts";
import { runRange } from "./span-run.ts";

const othersPauseMs = 5;
const retryMs = [5_000, 30_000, 120_000, 600_000] as const;
/** A background request that took longer than this is too large to stand in a reader's way: the next is smaller. */
const politeMs = 250;

/** Brings all that is missing of a mount's layers: at once ({@link fetchAll}), or when nobody waits ({@link fetchQuietly}). */
export class Completion {
  readonly #fetcher: Fetcher;
  readonly #layers: readonly LayerFetch[];
  readonly #limits: FetchLimits;
  readonly #budget: BackgroundBudget;

  constructor(
    fetcher: Fetcher,
    layers: readonly LayerFetch[],
    limits: FetchLimits,
    budget: BackgroundBudget,
  ) {
    this.#fetcher = fetcher;
    this.#layers = layers;
    this.#limits = limits;
    this.#budget = budget;
  }

  get complete(): boolean {
    return this.#layers.every((layer) => layer.complete);
  }

  /**
   * Fetches everything with several connections. `onProgress` hears after each request.
   * @throws MountError the first failure; `no_space` when the cache cannot keep it all
   */
  async fetchAll(onProgress: () => void, signal: AbortSignal): Promise<void> {
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    try {
      while (!this.complete) {
        const lanes = Array.from({ length: this.#limits.eagerConnections }, () =>
          this.#eagerLane(onProgress, either),
        );
        await waitFor(Promise.all(lanes), signal);
        if (!this.complete) await this.#untilOthersEnd(signal);
      }
    } finally {
      failed.abort();
    }
    onProgress();
  }

  async #eagerLane(onProgress: () => void, signal: AbortSignal): Promise<void> {
    for (const layer of this.#layers)
      for (;;) {
        signal.throwIfAborted();
        const request = this.#nextRequest(layer, this.#limits.rangeBytes);
        if (request === undefined) break;
        const outcome = await request.outcome;
        if (outcome.error !== undefined) throw outcome.error;
        if (outcome.noSpace) throw noSpaceFor(layer.descriptor.digest);
        onProgress();
      }
  }

  /** Completes the layers one after another, out of the readers' way, until done or aborted. Never throws. */
  async fetchQuietly(mayKeepMore: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
    try {
      for (let round = 0; !this.complete; round += 1) {
        const failed = await this.#quietRound(mayKeepMore, signal);
        if (failed === undefined) {
          if (!this.complete) await this.#untilOthersEnd(signal);
          continue;
        }
        logger("mount").warning("the background could not complete a layer; it will try again", {
          error: failed.message,
        });
        await wait(retryMs[Math.min(round, retryMs.length - 1)], undefined, { signal, ref: false });
      }
    } catch (thrown) {
      if (!signal.aborted) logger("mount").error("the background stopped", { error: thrown });
    }
  }

  async #quietRound(
    mayKeepMore: () => Promise<boolean>,
    signal: AbortSignal,
  ): Promise<MountError | undefined> {
    let failed: MountError | undefined;
    for (const layer of this.#layers) {
      const lanes = Array.from({ length: this.#limits.backgroundConnections }, () =>
        this.#quietLane(layer, mayKeepMore, signal),
      );
      failed = (await Promise.all(lanes)).find((error) => error !== undefined) ?? failed;
    }
    return failed;
  }

  async #quietLane(
    layer: LayerFetch,
    mayKeepMore: () => Promise<boolean>,
    signal: AbortSignal,
  ): Promise<MountError | undefined> {
    let rangeBytes = this.#limits.rangeBytes / 4;
    for (;;) {
      await this.#quiet(signal);
      if (layer.complete) return undefined;
      if (!(await mayKeepMore())) return noSpaceFor(layer.descriptor.digest);
      await this.#budget.ready(signal);
      const before = performance.now();
      const request = this.#nextRequest(layer, this.#budget.requestBytes(rangeBytes));
      if (request === undefined) return undefined;
      this.#budget.spend(request.bytes);
      const outcome = await waitFor(request.outcome, signal);
      if (outcome.error !== undefined || outcome.noSpace)
        return outcome.error ?? noSpaceFor(layer.descriptor.digest);
      const tookMs = performance.now() - before;
      rangeBytes = Math.min(this.#limits.rangeBytes, tookMs < politeMs ? rangeBytes * 2 : rangeBytes / 2);
    }
  }

  /** What is left is under way for others, or unproved: waits for that, and a moment, so that a round is never spun through. */
  async #untilOthersEnd(signal: AbortSignal): Promise<void> {
    const underWay = this.#layers.flatMap((layer) => [
      ...[...layer.inFlight.values()].map(({ ended }) => ended),
      ...(layer.stream === undefined ? [] : [layer.stream]),
    ]);
    await waitFor(Promise.all(underWay), signal);
    for (const layer of this.#layers) await waitFor(layer.prove(), signal);
    await wait(othersPauseMs, undefined, { signal });
  }

  /** Waits until no reader of any mount has waited for a while. */
  async #quiet(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const left = this.#limits.idleMs - this.#budget.quietMs();
      if (left <= 0) return;
      await wait(Math.max(left, 5), undefined, { signal, ref: false });
    }
  }

  /** Starts one request for the next missing bytes of a layer; `undefined` when all of it is there or under way. */
  #nextRequest(
    layer: LayerFetch,
    rangeBytes: number,
  ): { outcome: Promise<FetchOutcome>; bytes: number } | undefined {
    if (layer.complete) return undefined;
    if (layer.whole) {
      const outcome = layer.stream ?? this.#fetcher.fetchWhole(layer);
      return { outcome, bytes: layer.descriptor.size };
    }
    const run = layer.missingRun(0, rangeBytes);
    if (run === undefined) return undefined;
    const { start, end } = runRange(layer.blob, run);
    return { outcome: this.#fetcher.fetchRun(layer, run), bytes: end - start };
  }
}
