import { waitFor } from "../std/wait.ts";
import type { BackgroundBudget } from "./background-budget.ts";
import type { Fetcher } from "./fetcher.ts";
import { inLanes } from "./lanes.ts";
import type { FetchOutcome, LayerFetch } from "./layer-fetch.ts";
import type { FetchLimits } from "./limits.ts";
import { runRange } from "./span-run.ts";

/** Of one request: small enough that a reader's own request beside it does not wait long for its share of the link. */
const requestBytes = 5 * 1024 * 1024;

/**
 * Fetches an image while its first program starts, when nothing is known of what that reads. A program that loads its
 * libraries misses a hundred times, one after another; beside its own requests the link is idle, and what comes next
 * lies mostly behind what was missed last. So the image is brought at once, from there on: the latency of the registry is
 * paid a few times instead of once per miss. Readers have connections of their own, and join what is on its way.
 */
export class FirstStart {
  readonly #fetcher: Fetcher;
  readonly #layers: readonly LayerFetch[];
  readonly #limits: FetchLimits;
  readonly #budget: BackgroundBudget;
  readonly #mayKeepMore: () => Promise<boolean>;
  #stopped = false;

  constructor(options: {
    readonly fetcher: Fetcher;
    readonly layers: readonly LayerFetch[];
    readonly limits: FetchLimits;
    readonly budget: BackgroundBudget;
    /** Whether the cache has room for what nobody has asked for. */
    readonly mayKeepMore: () => Promise<boolean>;
  }) {
    this.#fetcher = options.fetcher;
    this.#layers = options.layers;
    this.#limits = options.limits;
    this.#budget = options.budget;
    this.#mayKeepMore = options.mayKeepMore;
  }

  /** Resolves when all is there or asked for, something failed, or the signal fires. Never throws. */
  run(signal: AbortSignal): Promise<void> {
    return inLanes(this.#limits.traceConnections, () => this.#lane(signal), signal);
  }

  async #lane(signal: AbortSignal): Promise<void> {
    while (!this.#stopped && (await this.#mayKeepMore())) {
      await this.#budget.ready(signal);
      const request = this.#nextRequest();
      if (request === undefined) return;
      const { error, noSpace } = await waitFor(request, signal);
      // What readers need they ask for, and are told why they do not get it; the rest is the background's.
      this.#stopped ||= error !== undefined || noSpace;
    }
  }

  #nextRequest(): Promise<FetchOutcome> | undefined {
    for (const layer of this.#byLatestMiss()) {
      if (layer.complete || layer.whole) continue;
      const run =
        layer.missingRun(layer.latestMiss?.span ?? 0, requestBytes) ?? layer.missingRun(0, requestBytes);
      if (run === undefined) continue;
      const { start, end } = runRange(layer.blob, run);
      this.#budget.spend(end - start);
      return this.#fetcher.fetchRun(layer, run);
    }
    return undefined;
  }

  /** The layer that was missed last comes first; those that nobody has read from come last, lowest first. */
  #byLatestMiss(): LayerFetch[] {
    return this.#layers.toSorted((a, b) => (b.latestMiss?.atMs ?? 0) - (a.latestMiss?.atMs ?? 0));
  }
}
