import type { Audit } from "../audit/audit.ts";
import type { WebhookAnswer } from "../registry/webhook-post.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { Rounds } from "../std/rounds.ts";
import { isTaken, problemOf, type Sending, sendToWebhook } from "./delivery.ts";
import { nextAttemptMs } from "./delivery-plan.ts";
import type { Delivery, DeliveryStore } from "./delivery-store.ts";

export interface DeliverySettings {
  /** At once, in this process. */
  readonly runningMax: number;
  /** At once to one webhook, over all schedulers. */
  readonly perWebhook: number;
  /** Longer than an attempt takes; what a process that ends holds is taken by another after that. */
  readonly leaseMs: number;
  readonly everyMs: number;
  /** Takes what the audit is to know; must not reject. */
  readonly note: Audit;
}

const standard: DeliverySettings = {
  runningMax: 64,
  perWebhook: 1,
  leaseMs: 20_000,
  everyMs: 1_000,
  note: async () => undefined,
};
const goneStatus = 410;
const log = logger("health");

/** Delivers alerts to webhooks, at least once each. The end of one delivery makes room for the next. */
export class DeliveryLoop {
  readonly #store: DeliveryStore;
  readonly #sending: Sending;
  readonly #settings: DeliverySettings;
  readonly #running = new Set<Promise<void>>();
  readonly #ending = new AbortController();
  readonly #rounds: Rounds;

  constructor(store: DeliveryStore, sending: Sending, settings: Partial<DeliverySettings> = {}) {
    this.#store = store;
    this.#sending = sending;
    this.#settings = { ...standard, ...settings };
    this.#rounds = new Rounds("webhook deliveries", this.#settings.everyMs, () => this.#round());
  }

  /** There may be something to deliver. */
  wake(): void {
    this.#rounds.wake();
  }

  /** Gives up what is under way, so that others can take it at once. */
  async close(): Promise<void> {
    this.#ending.abort();
    await this.#rounds.close();
    await Promise.all(this.#running);
  }

  async #round(): Promise<void> {
    const { runningMax, leaseMs, perWebhook } = this.#settings;
    const free = runningMax - this.#running.size;
    if (free <= 0) return;
    for (const delivery of await this.#store.claim(free, leaseMs, perWebhook)) {
      const attempt = this.#attempt(delivery).catch((error: unknown) => {
        // The lease ends by itself, and somebody tries again.
        log.error("the outcome of a delivery could not be kept", {
          webhook: delivery.webhookId,
          error: messageOf(error),
        });
      });
      this.#running.add(attempt);
      attempt.finally(() => {
        this.#running.delete(attempt);
        this.wake();
      });
    }
  }

  async #attempt(delivery: Delivery): Promise<void> {
    const { signal } = this.#ending;
    const { workspaceId, webhookId, told, sealed } = delivery;
    let answer: WebhookAnswer;
    try {
      answer = await sendToWebhook(this.#sending, { workspaceId, id: webhookId }, sealed, told, signal);
    } catch (error) {
      if (signal.aborted) await this.#store.release(delivery);
      else await this.#failed(delivery, problemOf(error), undefined);
      return;
    }
    if (isTaken(answer)) await this.#store.delivered(delivery);
    else if (answer.status === goneStatus) await this.#disable(delivery);
    else await this.#failed(delivery, `${delivery.host} answered ${answer.status}`, answer.retryAfterMs);
  }

  async #failed(delivery: Delivery, problem: string, retryAfterMs: number | undefined): Promise<void> {
    const attempts = delivery.attempts + 1;
    const retryInMs = nextAttemptMs({ attempts, ageMs: delivery.ageMs, retryAfterMs }, Math.random());
    const said = retryInMs === undefined ? `given up after ${attempts} attempts: ${problem}` : problem;
    await this.#store.failed(delivery, said, retryInMs);
    const { webhookId: webhook, workspaceId: workspace, told } = delivery;
    const fields = { webhook, workspace, alert: told.id, attempts, problem };
    if (retryInMs === undefined) log.warn("gave an alert's delivery to a webhook up", fields);
    else log.info("an alert's delivery to a webhook failed", { ...fields, retryInMs: Math.round(retryInMs) });
  }

  async #disable(delivery: Delivery): Promise<void> {
    const { webhookId: webhook, workspaceId: workspace, host } = delivery;
    await this.#store.disable(delivery, `${host} answered ${goneStatus}: it wants nothing more`);
    await this.#settings.note({
      actor: { kind: "node", id: "scheduler", name: "scheduler" },
      workspaceId: workspace,
      action: "webhook.disable",
      target: { kind: "webhook", id: webhook, name: host },
      outcome: "ok",
      fields: { status: String(goneStatus) },
    });
    log.warn("a webhook was disabled: its receiver wants nothing more", { webhook, workspace, host });
  }
}
