import { logger } from "../std/log.ts";
import { Rounds } from "../std/rounds.ts";
import type { Alert, AlertStore } from "./alert-store.ts";
import type { DeliveryStore } from "./delivery-store.ts";

const everyMs = 2_000;
const pruneEveryMs = 3_600_000;
const log = logger("health");

/** Tells what is due: alerts, their log lines, and whoever delivers them. */
export class AlertLoop {
  readonly #store: AlertStore;
  readonly #onTold: () => void;
  readonly #rounds: Rounds;
  readonly #pruning: Rounds;

  /** @param onTold there may be something to deliver */
  constructor(store: AlertStore, deliveries: Pick<DeliveryStore, "prune">, onTold: () => void) {
    this.#store = store;
    this.#onTold = onTold;
    this.#rounds = new Rounds("alerts", everyMs, (signal) => this.#round(signal));
    this.#pruning = new Rounds("old alerts", pruneEveryMs, async () => {
      await deliveries.prune();
      await store.prune();
    });
  }

  /** How a secret fares has changed. */
  wake(): void {
    this.#rounds.wake();
  }

  async close(): Promise<void> {
    await Promise.all([this.#rounds.close(), this.#pruning.close()]);
  }

  async #round(signal: AbortSignal): Promise<void> {
    for (let more = true; more && !signal.aborted; ) {
      const raised = await this.#store.raise();
      raised.told.forEach(tell);
      if (raised.told.length > 0) this.#onTold();
      more = raised.more;
    }
  }
}

const headlines = {
  failing: "a registry credential is failing",
  recovered: "a registry credential works again",
  expiring: "a registry credential ends soon",
} as const;

function tell({ kind, message, secretName, body }: Alert): void {
  const { workspace, registry, secret, code, expiresAt, imagesTotal, containersTotal } = body;
  const fields = {
    workspace,
    secret: secretName,
    version: secret.version,
    registry,
    ...(code === null ? {} : { code }),
    ...(expiresAt === null ? {} : { expiresAt }),
    images: imagesTotal,
    containers: containersTotal,
    detail: message,
  };
  if (kind === "recovered") log.info(headlines[kind], fields);
  else log.warn(headlines[kind], fields);
}
