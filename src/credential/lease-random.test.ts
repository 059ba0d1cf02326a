import { expect, test } from "bun:test";
import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { ManualClock, seeded, settle } from "./lease.test-kit.ts";
import { Lease, type LeaseTerm } from "./lease.ts";

const lifeMs = 60_000;
const patienceMs = 20_000;
const askMsMax = 8_000;
const shortestMs = 2_000;

/** A lease under random requests, refusals, failures and slow answers, with what must hold at each step. */
class Walk {
  readonly clock: ManualClock;
  readonly random: () => number;
  readonly lease: Lease;
  asking = 0;
  asks = 0;
  answered = 0;
  failed = 0;
  ended = false;
  readonly wrong: string[] = [];
  readonly #endsAt = new Map<string, number>();
  readonly #refused = new Set<string>();
  readonly #waiting = new Set<Promise<unknown>>();

  constructor(seed: number) {
    this.random = seeded(seed);
    this.clock = new ManualClock(this.random);
    this.lease = new Lease({
      ask: () => this.#ask(),
      keptUp: () => this.random() < 0.5,
      clock: this.clock,
      patienceMs,
    });
  }

  async #ask(): Promise<LeaseTerm> {
    this.asks += 1;
    this.asking += 1;
    if (this.asking > 1) this.wrong.push("two questions at once");
    if (this.ended) this.wrong.push("a question after the end");
    const askedAt = this.clock.now();
    await new Promise<void>((resolve) => this.clock.later(this.random() * askMsMax, resolve));
    this.asking -= 1;
    const luck = this.random();
    if (luck < 0.3) throw new Error("nobody answers");
    if (luck < 0.4) throw new CredentialError("provider_failed", "no");
    const name = `t${this.asks}`;
    const validForMs = luck < 0.6 ? undefined : lifeMs * this.random();
    // However short a life is said to be, or how long it took to hear of it: it counts for two seconds.
    if (validForMs !== undefined)
      this.#endsAt.set(name, Math.max(askedAt + validForMs, this.clock.now() + shortestMs));
    const authorization = { kind: "bearer" as const, token: new Redacted(name) };
    return {
      provider: {
        registry: "r",
        type: "token",
        fingerprint: name,
        renewable: false,
        authorization: async () => authorization,
      },
      ...(validForMs === undefined ? {} : { validForMs }),
    };
  }

  /** Asks for what to send; some of what comes is refused a moment later, and asked for anew as such. */
  request(refusing?: string): void {
    const since = this.clock.now();
    const work = this.lease.authorization(undefined, refusing !== undefined).then(
      (authorization) => {
        this.answered += 1;
        if (authorization.kind !== "bearer") return;
        const name = authorization.token.expose();
        if (this.clock.now() > (this.#endsAt.get(name) ?? Number.POSITIVE_INFINITY))
          this.wrong.push(`${name} was over`);
        if (name === refusing && !this.#refused.has(name)) this.#refused.add(name);
        else if (name === refusing) return;
        if (this.random() < 0.1 && !this.#refused.has(name)) this.request(name);
      },
      (thrown: unknown) => {
        this.failed += 1;
        const waitedMs = this.clock.now() - since;
        if (waitedMs > patienceMs + askMsMax) this.wrong.push(`waited for ${waitedMs} ms`);
        if (!(thrown instanceof Error)) this.wrong.push("failed with what is no error");
      },
    );
    this.#waiting.add(work);
    void work.finally(() => this.#waiting.delete(work));
  }

  async walk(steps: number): Promise<void> {
    for (let step = 0; step < steps; step += 1) {
      const many = this.random() < 0.1 ? 20 : 1;
      for (let count = 0; count < many; count += 1) this.request();
      await settle();
      await this.clock.pass(this.random() * 5_000);
    }
    this.lease.end();
    this.ended = true;
    await this.clock.pass(2 * (patienceMs + askMsMax));
    await settle();
    if (this.#waiting.size > 0) this.wrong.push(`${this.#waiting.size} wait for ever`);
  }
}

test("two hundred random lives: one question at a time, nothing that is over, nobody waits for ever", async () => {
  let [answered, failed, asks] = [0, 0, 0];
  for (let seed = 1; seed <= 200; seed += 1) {
    const walk = new Walk(seed);
    await walk.walk(60);
    expect({ seed, wrong: walk.wrong }).toEqual({ seed, wrong: [] });
    answered += walk.answered;
    failed += walk.failed;
    asks += walk.asks;
  }
  // It was a walk through all of it.
  expect(answered).toBeGreaterThan(10_000);
  expect(failed).toBeGreaterThan(1_000);
  expect(asks).toBeGreaterThan(1_500);
});
