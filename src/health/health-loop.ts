import { CodedError, messageOf } from "../std/error.ts";
import { FewAtOnce } from "../std/few-at-once.ts";
import { logger } from "../std/log.ts";
import { sleep } from "../std/wait.ts";
import type { HealthStore, SecretToCheck } from "./health-store.ts";
import type { HealthMonitor } from "./monitor.ts";

const log = logger("health");
const lookIntervalMs = 5_000;
const leaseMs = 120_000;
const checksAtOnce = 4;
/** So many workspaces take turns; those beyond come in between. */
const servedMax = 1_000;
/** Between two checks at one registry. */
const pauseMs = 250;

export interface HealthLoopDependencies {
  readonly store: HealthStore;
  readonly monitor: Pick<HealthMonitor, "check" | "now">;
  /** Of this process; whoever dies holds nothing for longer than its lease. */
  readonly holder: string;
}

/**
 * Checks what is due: a few secrets at once, one at a time of each registry and not without a pause. Several schedulers
 * share the work.
 */
export class HealthLoop {
  readonly #dependencies: HealthLoopDependencies;
  readonly #ending = new AbortController();
  readonly #runners = new Set<Promise<void>>();
  /** When each registry's turn ends; infinite while it is asked. */
  readonly #busy = new Map<string, number>();
  /** Workspaces whose secrets were claimed here, the last of them last. */
  readonly #served = new Set<string>();
  /** Claims follow each other, so that no registry is claimed twice. */
  readonly #claims = new FewAtOnce(1, checksAtOnce);
  #timer: ReturnType<typeof setInterval> | undefined;
  #subscription: { end(): Promise<void> } | undefined;

  constructor(dependencies: HealthLoopDependencies) {
    this.#dependencies = dependencies;
  }

  static async start(dependencies: HealthLoopDependencies): Promise<HealthLoop> {
    const loop = new HealthLoop(dependencies);
    const look = (): void => void loop.#look();
    loop.#subscription = await dependencies.store.subscribeDue(() => loop.#wake());
    loop.#timer = setInterval(look, lookIntervalMs);
    look();
    return loop;
  }

  /** Gives up the checks under way and waits until they are gone. */
  async close(): Promise<void> {
    this.#ending.abort(new DOMException("the scheduler ends", "AbortError"));
    clearInterval(this.#timer);
    await this.#subscription?.end();
    await Promise.all(this.#runners);
  }

  /** Checks what is due now, and what becomes due meanwhile, until nothing is. */
  async round(): Promise<void> {
    await this.#dependencies.store.adopt(this.#dependencies.monitor.now());
    this.#wake();
    while (this.#runners.size > 0) await Promise.all(this.#runners);
  }

  async #look(): Promise<void> {
    try {
      await this.#dependencies.store.adopt(this.#dependencies.monitor.now());
    } catch (error) {
      log.warn("secrets that are new to the checks are not taken up", { error: wordOf(error) });
    }
    this.#wake();
  }

  #wake(): void {
    if (this.#ending.signal.aborted || this.#runners.size >= checksAtOnce) return;
    const runner: Promise<void> = this.#run().finally(() => this.#runners.delete(runner));
    this.#runners.add(runner);
  }

  /** One after the other, until nothing is due for it. */
  async #run(): Promise<void> {
    const { signal } = this.#ending;
    while (!signal.aborted) {
      const secret = await this.#claims.run(() => this.#claim());
      if (secret !== undefined) {
        this.#wake();
        await this.#check(secret);
      } else if (!(await this.#pauses())) return;
    }
  }

  async #claim(): Promise<SecretToCheck | undefined> {
    const { store, monitor, holder } = this.#dependencies;
    const nowMs = performance.now();
    for (const [registry, untilMs] of this.#busy) if (untilMs <= nowMs) this.#busy.delete(registry);
    const busy = [...this.#busy.keys()];
    try {
      const served = [...this.#served];
      const secret = await store.claim({ now: monitor.now(), holder, leaseMs, busy, served });
      if (secret === undefined) return undefined;
      this.#busy.set(secret.registry, Number.POSITIVE_INFINITY);
      this.#serves(secret.workspaceId);
      return secret;
    } catch (error) {
      log.warn("the secrets that are due cannot be read", { error: wordOf(error) });
      return undefined;
    }
  }

  #serves(workspaceId: string): void {
    this.#served.delete(workspaceId);
    this.#served.add(workspaceId);
    const [oldest] = this.#served;
    if (this.#served.size > servedMax && oldest !== undefined) this.#served.delete(oldest);
  }

  async #check(secret: SecretToCheck): Promise<void> {
    const { store, monitor, holder } = this.#dependencies;
    const { signal } = this.#ending;
    try {
      await monitor.check(secret, signal);
    } catch (error) {
      if (!signal.aborted) {
        // Its lease is its back-off.
        log.error("a secret cannot be checked", { secret: secret.secretId, error: wordOf(error) });
      } else await store.release(secret.secretId, holder).catch(() => undefined);
    } finally {
      this.#busy.set(secret.registry, performance.now() + pauseMs);
    }
  }

  /** Waits until the next registry may be asked again; false: none has to be waited for. */
  async #pauses(): Promise<boolean> {
    const endsMs = Math.min(...[...this.#busy.values()].filter(Number.isFinite));
    if (!Number.isFinite(endsMs)) return false;
    const leftMs = Math.max(1, endsMs - performance.now());
    return await sleep(leftMs, this.#ending.signal).then(
      () => true,
      () => false,
    );
  }
}

/** Foreign errors' words may hold what must not be logged. */
function wordOf(error: unknown): string {
  return error instanceof CodedError ? messageOf(error) : "unexpected";
}
