import { logger } from "../std/log.ts";

const log = logger("endpoint");
const everyMs = 1_000;
const rememberedMax = 1_000;

/** A request that was not answered as its caller wished, and why. */
export interface Failure {
  readonly id: string;
  readonly endpoint: string;
  readonly workspace: string | undefined;
  readonly deployment: string | undefined;
  readonly container: string | undefined;
  readonly code: string;
  readonly reason: string;
  readonly status: number;
  readonly elapsedMs: number;
}

/** One line for each request that failed; of those for which there was no room in the queue, one a second for each deployment. */
export class FailureLog {
  readonly #full = new Map<string, { until: number; more: number }>();

  note(failure: Failure): void {
    if (failure.code !== "queue_full") {
      this.#write(failure, {});
      return;
    }
    const key = failure.deployment ?? "";
    const known = this.#full.get(key);
    const now = performance.now();
    if (known !== undefined && known.until > now) {
      known.more += 1;
      return;
    }
    this.#full.delete(key);
    this.#full.set(key, { until: now + everyMs, more: 0 });
    const [oldest] = this.#full.keys();
    if (this.#full.size > rememberedMax && oldest !== undefined) this.#full.delete(oldest);
    this.#write(failure, known === undefined || known.more === 0 ? {} : { moreBefore: known.more });
  }

  #write(failure: Failure, more: { readonly moreBefore?: number }): void {
    log.warn("a request to an endpoint failed", { ...failure, ...more });
  }
}
