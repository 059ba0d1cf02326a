import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import type { DemandOf, DemandStore } from "./demand-store.ts";
import type { Demand } from "./endpoint.ts";

const log = logger("endpoint");

const writeEveryMs = 250;
/** Far less than `demandLifeMs`. */
const renewEveryMs = 2_000;

interface Entry {
  demand: Demand;
  written: Demand;
  writtenAt: number;
  /** Something was to be done since it was written. */
  used: boolean;
}

const nothing: Demand = { queued: 0, inFlight: 0 };

/** What this gateway has to do, written down for all of them now and then. */
export class DemandBook {
  readonly gatewayId: string;
  readonly #store: Pick<DemandStore, "write" | "clear">;
  readonly #onWaiting: (deploymentId: string) => void;
  readonly #entries = new Map<string, Entry>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;

  /** @param onWaiting called when it was written down that requests of a deployment wait: others' may have grown, too */
  constructor(
    gatewayId: string,
    store: Pick<DemandStore, "write" | "clear">,
    onWaiting: (deploymentId: string) => void,
  ) {
    this.gatewayId = gatewayId;
    this.#store = store;
    this.#onWaiting = onWaiting;
  }

  set(deploymentId: string, demand: Demand): void {
    const entry = this.#entries.get(deploymentId);
    const used = demand.queued + demand.inFlight > 0;
    if (entry === undefined) {
      if (!used) return;
      this.#entries.set(deploymentId, { demand, written: nothing, writtenAt: 0, used });
    } else {
      entry.demand = demand;
      entry.used ||= used;
    }
    this.#later();
  }

  /** What all gateways have to do: what was read of that, with this one's as it is by now. */
  together(deploymentId: string, read: Demand): Demand {
    const entry = this.#entries.get(deploymentId);
    if (entry === undefined) return read;
    const { demand, written } = entry;
    return {
      queued: Math.max(0, read.queued - written.queued) + demand.queued,
      inFlight: Math.max(0, read.inFlight - written.inFlight) + demand.inFlight,
    };
  }

  /** What of these deployments is to be written now; it counts as written. */
  take(deploymentIds: readonly string[]): DemandOf[] {
    const at = performance.now();
    return deploymentIds.flatMap((deploymentId) => {
      const entry = this.#entries.get(deploymentId);
      if (entry === undefined || !isDue(entry, at)) return [];
      const { demand } = entry;
      entry.written = demand;
      entry.writtenAt = at;
      entry.used = false;
      if (!isSome(demand)) this.#entries.delete(deploymentId);
      return [{ deploymentId, ...demand }];
    });
  }

  /** What was taken could not be written. */
  putBack(taken: readonly DemandOf[]): void {
    for (const { deploymentId } of taken) {
      const entry = this.#entries.get(deploymentId) ?? {
        demand: nothing,
        written: nothing,
        writtenAt: 0,
        used: true,
      };
      // As if something else had been written.
      entry.written = { queued: -1, inFlight: -1 };
      entry.writtenAt = 0;
      this.#entries.set(deploymentId, entry);
    }
    this.#later();
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#writing;
    await this.#store.clear(this.gatewayId);
  }

  #later(): void {
    if (this.#timer !== undefined || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#writing = this.#write().then(() => {
        if (this.#entries.size > 0) this.#later();
      });
    }, writeEveryMs);
  }

  async #write(): Promise<void> {
    const taken = this.take([...this.#entries.keys()]);
    if (taken.length === 0) return;
    try {
      await this.#store.write(this.gatewayId, taken);
      for (const { deploymentId, queued } of taken) if (queued > 0) this.#onWaiting(deploymentId);
    } catch (error) {
      log.warn("what there is to do could not be written down", { error: messageOf(error) });
      this.putBack(taken);
    }
  }
}

function isDue({ demand, written, writtenAt, used }: Entry, at: number): boolean {
  if (demand.queued !== written.queued || demand.inFlight !== written.inFlight) return true;
  return isSome(demand) ? at - writtenAt >= renewEveryMs : used;
}

function isSome({ queued, inFlight }: Demand): boolean {
  return queued + inFlight > 0;
}
