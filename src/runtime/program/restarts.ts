import type { PublishedPort } from "../../container/options.ts";
import { sleep } from "../../std/wait.ts";
import type { ExitStatus } from "../spec.ts";
import { nextRestart, type Restarts } from "./restart-policy.ts";

/** What is told of a program that is started again. */
export type RestartNews =
  | { readonly kind: "waits"; readonly status: ExitStatus; readonly restarts: Restarts }
  | {
      readonly kind: "started";
      readonly restarts: Restarts;
      readonly address: string | undefined;
      readonly ports: readonly PublishedPort[];
    };

export type OnRestart = (news: RestartNews) => void;

/** Decides after each end of a container's program whether it is started again; until somebody ends it for good. */
export class RestartDecision {
  readonly #final = new AbortController();
  readonly #supervised = Promise.withResolvers<OnRestart | undefined>();

  /** @param possible false: what it takes to start it is not there any more */
  constructor(possible: boolean) {
    if (!possible) this.endForGood();
  }

  /** Nothing is started again before somebody can be told. */
  supervise(onRestart: OnRestart): void {
    this.#supervised.resolve(onRestart);
  }

  /** The program's next end is the last. Safe to repeat. */
  endForGood(): void {
    this.#final.abort();
    this.#supervised.resolve(undefined);
  }

  get final(): boolean {
    return this.#final.signal.aborted;
  }

  /** Whether the program's end would be the container's, whatever it is. */
  isLast({ kind }: Pick<Restarts, "kind">): boolean {
    return this.final || kind === "no";
  }

  /** What is to follow an end; `undefined`: nothing. */
  async next(restarts: Restarts, status: ExitStatus, ranMs: number): Promise<Restarts | undefined> {
    const next = nextRestart(restarts, status, ranMs);
    if (next === undefined || this.final) return undefined;
    await this.#supervised.promise;
    return this.final ? undefined : next;
  }

  /** Waits for as long as it takes until the next start; false when there is none after all. */
  async wait({ delayMs }: Restarts): Promise<boolean> {
    await sleep(delayMs, this.#final.signal).catch(() => undefined);
    return !this.final;
  }

  async tell(news: RestartNews): Promise<void> {
    (await this.#supervised.promise)?.(news);
  }
}
