import { and, eq, inArray, isNull, lt, or, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { alerts, webhookDeliveries, webhooks } from "../db/schema-health.ts";
import type { SealedWebhook } from "../secret/webhook-vault.ts";
import type { AlertBody, AlertKind } from "./alert.ts";
import type { Told } from "./webhook-payload.ts";

/** A delivery that was claimed. */
export interface Delivery {
  readonly id: number;
  readonly webhookId: string;
  readonly workspaceId: string;
  readonly host: string;
  readonly sealed: SealedWebhook;
  readonly told: Told;
  /** Attempts that failed before. */
  readonly attempts: number;
  readonly ageMs: number;
}

const keptDays = 30;

/** Deliveries on their way, for any number of schedulers: a claim is a lease. All times are the database's. */
export class DeliveryStore {
  readonly #database: Database;
  readonly #claimedBy: string;

  /** @param claimedBy names this process */
  constructor(database: Database, claimedBy: string) {
    this.#database = database;
    this.#claimedBy = claimedBy;
  }

  /**
   * Claims up to `limit` deliveries that are due, those that failed least first.
   *
   * @param perWebhook how many may be under way to one webhook, over all schedulers: a slow receiver holds up nobody else
   */
  async claim(limit: number, leaseMs: number, perWebhook: number): Promise<Delivery[]> {
    const open = sql`d.delivered_at is null and d.failed_at is null`;
    const free = sql`(d.lease_until is null or d.lease_until < now())`;
    const claimed = await this.#database.query((db) =>
      db.execute<{ id: string }>(sql`
        with next as (
          select d.id from webhooks h
          cross join lateral (
            select count(*) as count from webhook_deliveries d where d.webhook_id = h.id and d.lease_until >= now()
          ) busy
          cross join lateral (
            select d.id, d.attempts, d.next_attempt_at from webhook_deliveries d
            where d.webhook_id = h.id and ${open} and ${free} and d.next_attempt_at <= now()
            order by d.attempts, d.next_attempt_at limit greatest(${perWebhook}::int - busy.count, 0)
          ) d
          order by d.attempts, d.next_attempt_at, d.id limit ${limit}
        ), chosen as (
          select d.id from webhook_deliveries d
          where d.id in (select id from next) and ${open} and ${free} and d.next_attempt_at <= now()
          for update skip locked
        )
        update webhook_deliveries d
        set claimed_by = ${this.#claimedBy}, lease_until = now() + ${leaseMs} * interval '1 millisecond'
        from chosen where d.id = chosen.id returning d.id`),
    );
    const ids = claimed.map(({ id }) => Number(id));
    return ids.length === 0 ? [] : await this.#read(ids);
  }

  async #read(ids: readonly number[]): Promise<Delivery[]> {
    const rows = await this.#database.query((db) =>
      db
        .select({
          delivery: webhookDeliveries,
          webhook: webhooks,
          alert: alerts,
          ageMs: sql<number>`(extract(epoch from now() - ${webhookDeliveries.createdAt}) * 1000)::float8`,
        })
        .from(webhookDeliveries)
        .innerJoin(webhooks, eq(webhooks.id, webhookDeliveries.webhookId))
        .innerJoin(alerts, eq(alerts.id, webhookDeliveries.alertId))
        .where(inArray(webhookDeliveries.id, [...ids])),
    );
    return rows.map(({ delivery, webhook, alert, ageMs }) => ({
      id: delivery.id,
      webhookId: webhook.id,
      workspaceId: webhook.workspaceId,
      host: webhook.host,
      sealed: webhook,
      told: {
        id: alert.id,
        kind: alert.kind as AlertKind,
        at: alert.createdAt,
        message: alert.message,
        body: alert.body as AlertBody,
      },
      attempts: delivery.attempts,
      ageMs,
    }));
  }

  async delivered({ id, webhookId }: Delivery): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const done = { deliveredAt: sql`now()`, attempts: sql`attempts + 1`, lastError: null };
      if (!(await this.#end(tx, id, done))) return;
      await tx
        .update(webhooks)
        .set({ lastDeliveredAt: sql`now()`, lastError: null })
        .where(eq(webhooks.id, webhookId));
    });
  }

  /** @param retryInMs undefined: it is given up */
  async failed({ id, webhookId }: Delivery, error: string, retryInMs: number | undefined): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const then =
        retryInMs === undefined
          ? { failedAt: sql`now()` }
          : { nextAttemptAt: sql`now() + ${retryInMs} * interval '1 millisecond'` };
      if (!(await this.#end(tx, id, { ...then, attempts: sql`attempts + 1`, lastError: error }))) return;
      await tx.update(webhooks).set({ lastError: error }).where(eq(webhooks.id, webhookId));
    });
  }

  /** The receiver wants nothing more: everything on its way there is given up. */
  async disable({ webhookId }: Delivery, error: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx
        .update(webhooks)
        .set({ disabledAt: sql`coalesce(disabled_at, now())`, lastError: error })
        .where(eq(webhooks.id, webhookId));
      await tx
        .update(webhookDeliveries)
        .set({ failedAt: sql`now()`, lastError: error, claimedBy: null, leaseUntil: null })
        .where(
          and(
            eq(webhookDeliveries.webhookId, webhookId),
            isNull(webhookDeliveries.deliveredAt),
            isNull(webhookDeliveries.failedAt),
          ),
        );
    });
  }

  /** Not tried to its end: anybody may take it at once. */
  async release({ id }: Delivery): Promise<void> {
    await this.#database.query((db) => this.#end(db, id, {}));
  }

  async prune(): Promise<void> {
    const long = sql`now() - ${keptDays} * interval '1 day'`;
    const { deliveredAt, failedAt } = webhookDeliveries;
    await this.#database.query((db) =>
      db.delete(webhookDeliveries).where(or(lt(deliveredAt, long), lt(failedAt, long))),
    );
  }

  /** False when the claim is not ours any more: somebody else has it, and his word counts. */
  async #end(db: Queries, id: number, set: Record<string, unknown>): Promise<boolean> {
    const ended = await db
      .update(webhookDeliveries)
      .set({ ...set, claimedBy: null, leaseUntil: null })
      .where(and(eq(webhookDeliveries.id, id), eq(webhookDeliveries.claimedBy, this.#claimedBy)))
      .returning({ id: webhookDeliveries.id });
    return ended.length > 0;
  }
}
