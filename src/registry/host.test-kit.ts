import { Host, type HostRules, type HostTime } from "./host.ts";
import { Patience, type Place, type Probe } from "./place.ts";

interface Due {
  readonly atMs: number;
  readonly call: () => void;
}

/** Time that passes when a test says so, with what is due called in order. */
export class ManualTime implements HostTime {
  #nowMs = 0;
  #due: Due[] = [];

  readonly now = (): number => this.#nowMs;

  readonly later = (timeMs: number, call: () => void): void => {
    this.#due.push({ atMs: this.#nowMs + timeMs, call });
  };

  /** Lets time pass, and everything that follows from it happen. */
  async pass(timeMs: number): Promise<void> {
    const endMs = this.#nowMs + timeMs;
    await settle();
    for (;;) {
      const next = this.#due.reduce<Due | undefined>(
        (first, one) => (one.atMs <= endMs && (first === undefined || one.atMs < first.atMs) ? one : first),
        undefined,
      );
      if (next === undefined) break;
      this.#due = this.#due.filter((one) => one !== next);
      this.#nowMs = next.atMs;
      next.call();
      await settle();
    }
    this.#nowMs = endMs;
  }
}

async function settle(): Promise<void> {
  for (let count = 0; count < 20; count += 1) await Promise.resolve();
}

/** What a host does with a request that has come to it: after how long its head comes, if ever. */
export type Behaviour = (nowMs: number) => { readonly afterMs: number; readonly well?: boolean } | undefined;

/** A host with a registry behind it that behaves as told, and clients that ask until they are answered. */
export class HostScene {
  readonly time = new ManualTime();
  readonly host: Host;
  /** When each request, and each probe, went out. */
  readonly sent: number[] = [];
  readonly probed: number[] = [];
  behaviour: Behaviour = () => ({ afterMs: 10 });
  probes: Behaviour = () => ({ afterMs: 10 });
  atOnce = 0;
  mostAtOnce = 0;

  constructor(rules: Partial<HostRules> = {}) {
    this.host = new Host({ connections: 16, trialEveryMs: 500, silentAfterMs: 1000, ...rules }, this.time);
  }

  /** Asks as the egress does, again when given up or failed. Resolves with when it was answered well. */
  async ask(options: { readonly background?: boolean; readonly signal?: AbortSignal } = {}): Promise<number> {
    const patience = new Patience();
    const signal = options.signal ?? new AbortController().signal;
    const turn = { background: options.background === true, patience, probe: () => this.#probe() };
    for (let again = false, pauseMs = 0; ; ) {
      const place = await this.host.enter({ ...turn, again, pauseMs }, signal);
      this.sent.push(this.time.now());
      const outcome = await this.#answer(place);
      if (outcome === "well") return this.time.now();
      again = outcome !== "overtaken";
      pauseMs = outcome === "failed" ? 250 : 0;
    }
  }

  async #answer(place: Place): Promise<"well" | "failed" | "overtaken" | "displaced"> {
    const given = Promise.withResolvers<void>();
    place.signal.addEventListener("abort", () => given.resolve());
    this.atOnce += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.atOnce);
    const answer = this.behaviour(this.time.now());
    if (answer !== undefined) this.time.later(answer.afterMs, given.resolve);
    await given.promise;
    this.atOnce -= 1;
    if (place.abandoned !== undefined) return place.abandoned;
    const well = answer?.well !== false;
    place.answered(well);
    place.leave(true);
    return well ? "well" : "failed";
  }

  #probe(): ReturnType<Probe> {
    this.probed.push(this.time.now());
    const { promise, resolve } = Promise.withResolvers<"nothing" | "answered">();
    const answer = this.probes(this.time.now());
    this.time.later(Math.min(answer?.afterMs ?? 2000, 2000), () =>
      resolve(answer === undefined ? "nothing" : "answered"),
    );
    return promise;
  }
}

export const silence: Behaviour = () => undefined;
