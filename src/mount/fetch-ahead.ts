import type { Trace } from "../index/trace.ts";
import { waitFor } from "../std/wait.ts";
import type { BackgroundBudget } from "./background-budget.ts";
import { Completion } from "./completion.ts";
import type { Fetcher } from "./fetcher.ts";
import { FirstStart } from "./first-start.ts";
import type { LayerFetch } from "./layer-fetch.ts";
import type { FetchLimits } from "./limits.ts";
import { TraceReplay } from "./trace-replay.ts";

export interface FetchAheadOptions {
  readonly fetcher: Fetcher;
  readonly layers: readonly LayerFetch[];
  readonly limits: FetchLimits;
  readonly budget: BackgroundBudget;
  /** Whether the cache has room for what nobody has asked for. */
  readonly mayKeepMore: () => Promise<boolean>;
}

/**
 * What a mount fetches before anybody asks: what earlier starts read, or all of an image that nothing is known about; then
 * the rest, while it is quiet.
 */
export class FetchAhead {
  readonly #options: FetchAheadOptions;
  readonly #completion: Completion;
  readonly #leaving = new AbortController();
  #start: Promise<unknown> = Promise.resolve();
  #background: { readonly stop: AbortController; readonly ended: Promise<void> } | undefined;

  constructor(options: FetchAheadOptions) {
    const { fetcher, layers, limits, budget } = options;
    this.#options = options;
    this.#completion = new Completion(fetcher, layers, limits, budget);
  }

  /** Fetches everything, at once; see {@link Completion.fetchAll}. */
  all(onProgress: () => void, signal: AbortSignal): Promise<void> {
    return this.#completion.fetchAll(onProgress, signal);
  }

  /** Fetches what earlier starts read, from now on. */
  replay(trace: Trace): void {
    const { fetcher, layers, limits } = this.#options;
    const replay = new TraceReplay(fetcher, layers, trace, limits);
    this.#start = Promise.all([this.#start, this.#begin(replay)]);
  }

  /** Fetches all of it from now on, beside what is read. */
  bringAll(): void {
    this.#start = this.#begin(new FirstStart(this.#options));
  }

  /** Fetches the rest while it is quiet, once what a start needs is there. Does nothing when that is under way. */
  background(): void {
    if (this.#background !== undefined || this.#completion.complete) return;
    const stop = new AbortController();
    const ended = this.#start.then(() =>
      this.#completion.fetchQuietly(this.#options.mayKeepMore, stop.signal),
    );
    this.#background = { stop, ended };
  }

  /** Not before somebody has a source: the requests' deadlines would pass while nobody can answer them. */
  async #begin(fetching: Pick<FirstStart, "run">): Promise<void> {
    const { signal } = this.#leaving;
    const { supplied } = this.#options.fetcher;
    if (supplied !== undefined) await waitFor(supplied, signal).catch(() => undefined);
    if (!signal.aborted) await fetching.run(signal);
  }

  /** Ends all of it; resolves when nothing of it runs any more. The background may be started again. */
  async stop(): Promise<void> {
    this.#leaving.abort();
    this.#background?.stop.abort();
    await this.#start;
    await this.#background?.ended;
    this.#background = undefined;
  }
}
