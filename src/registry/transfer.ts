import type { Answer } from "./answer.ts";
import type { RepositoryApi } from "./api.ts";
import type { Order } from "./egress.ts";
import { RegistryError } from "./error.ts";
import type { MirrorAnswer } from "./mirror.ts";
import { Patience } from "./place.ts";
import { linePauseMs, mayResume } from "./retry.ts";

/** How many short answers in a row, without progress between them, are no accident. */
const shortMax = 5;
const progressSizeBytes = 64 * 1024;
/** A mirror that brings less than this, over so long, is slower than it is worth. */
const mirrorBytesPerSecondMin = 128 * 1024;
const mirrorJudgedAfterMs = 3_000;

/** What a {@link Transfer} reads from. */
export type Supply = { readonly answer: Answer } & Partial<MirrorAnswer>;

/** One blob, or a range of it, on its way over as many requests as it takes. Says after a break whether and how to go on. */
export class Transfer {
  readonly signal: AbortSignal;
  /** Whether any of it came from a mirror. */
  mirrored = false;
  readonly #api: RepositoryApi;
  readonly #order: Order;
  #progressMs: number;
  #sinceBreak = 0;
  #short = 0;
  #again = false;
  #mirror: { readonly failed: () => void; readonly sinceMs: number } | undefined;

  constructor(api: RepositoryApi, signal: AbortSignal, background = false) {
    this.#api = api;
    this.signal = signal;
    this.#order = { background, patience: new Patience() };
    this.#progressMs = api.clock.now();
  }

  /** How its next request stands to others. */
  get order(): Order {
    const { clock } = this.#api;
    return this.#again ? { ...this.#order, againAfterMs: linePauseMs(clock.random()) } : this.#order;
  }

  /** What follows comes from here. */
  begin({ answer, failed }: Supply): Answer {
    this.#mirror = failed === undefined ? undefined : { failed, sinceMs: this.#api.clock.now() };
    if (failed !== undefined) this.mirrored = true;
    return answer;
  }

  /** @throws RegistryError `timeout` when it comes from a mirror and that is slow */
  progress(sizeBytes: number): void {
    this.#sinceBreak += sizeBytes;
    if (this.#mirror === undefined) return;
    const tookMs = this.#api.clock.now() - this.#mirror.sinceMs;
    if (tookMs < mirrorJudgedAfterMs || this.#sinceBreak >= (tookMs / 1000) * mirrorBytesPerSecondMin) return;
    const { where } = this.#api;
    throw new RegistryError("timeout", `a mirror of ${where.registry} is slow`, where);
  }

  /** @throws the error itself, when there is nothing to go on with */
  broke(error: unknown): void {
    this.signal.throwIfAborted();
    const { clock, egress } = this.#api;
    if (this.#sinceBreak >= progressSizeBytes) {
      this.#progressMs = clock.now();
      this.#short = 0;
    }
    this.#sinceBreak = 0;
    if (this.#mirror !== undefined) {
      // The rest comes from the registry, which has not been asked yet.
      this.#mirror.failed();
      this.#mirror = undefined;
      return;
    }
    if (error instanceof RegistryError && error.code === "blob_truncated") this.#short += 1;
    // Given up in favour of asking anew, which patience bounds.
    this.#again = !(error instanceof RegistryError && error.code === "timeout" && error.retryAfterMs === 0);
    const tooLong = clock.now() - this.#progressMs >= egress.policy.totalTimeoutMs;
    if (!mayResume(error) || tooLong || this.#short >= shortMax) throw error;
  }
}
