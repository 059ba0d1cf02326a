import { and, asc, count, eq, isNotNull, isNull, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { workspaces } from "../db/schema.ts";
import { webhookDeliveries, webhooks } from "../db/schema-health.ts";
import type { SealedWebhook } from "../secret/webhook-vault.ts";
import { HealthError } from "./error.ts";
import { type Webhook, webhooksMax } from "./webhook.ts";

/** The rows of webhooks; it sees ciphertext only. */
export class WebhookStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws HealthError `too_many_webhooks` */
  async insert(
    webhook: { id: string; workspaceId: string; host: string },
    sealed: SealedWebhook,
  ): Promise<Webhook> {
    const { id, workspaceId, host } = webhook;
    return await this.#database.transaction(async (tx) => {
      // Two that come at once count one after the other.
      await tx
        .select({ id: workspaces.id })
        .from(workspaces)
        .where(eq(workspaces.id, workspaceId))
        .for("update");
      const [there] = await tx
        .select({ count: count() })
        .from(webhooks)
        .where(eq(webhooks.workspaceId, workspaceId));
      if ((there?.count ?? 0) >= webhooksMax) throw tooMany();
      await tx.insert(webhooks).values({ id, workspaceId, host, ...sealed });
      const [made] = await select(tx, workspaceId, id);
      return made as Webhook;
    });
  }

  /** The oldest first. */
  async list(workspaceId: string): Promise<Webhook[]> {
    return await this.#database.query((db) => select(db, workspaceId));
  }

  /** @throws HealthError `webhook_not_found` */
  async sealed(workspaceId: string, id: string): Promise<SealedWebhook & { readonly host: string }> {
    const [row] = isUuid(id)
      ? await this.#database.query((db) =>
          db
            .select({
              host: webhooks.host,
              keyId: webhooks.keyId,
              wrappedDataKey: webhooks.wrappedDataKey,
              nonce: webhooks.nonce,
              ciphertext: webhooks.ciphertext,
            })
            .from(webhooks)
            .where(and(eq(webhooks.workspaceId, workspaceId), eq(webhooks.id, id))),
        )
      : [];
    if (row === undefined) throw unknownWebhook(id);
    return row;
  }

  /** With what was on its way there. @throws HealthError `webhook_not_found` */
  async remove(workspaceId: string, id: string): Promise<void> {
    const removed = isUuid(id)
      ? await this.#database.query((db) =>
          db
            .delete(webhooks)
            .where(and(eq(webhooks.workspaceId, workspaceId), eq(webhooks.id, id)))
            .returning({ id: webhooks.id }),
        )
      : [];
    if (removed.length === 0) throw unknownWebhook(id);
  }
}

function select(db: Queries, workspaceId: string, id?: string): Promise<Webhook[]> {
  const { deliveredAt, failedAt } = webhookDeliveries;
  const isPending = and(isNull(deliveredAt), isNull(failedAt));
  return db
    .select({
      id: webhooks.id,
      workspaceId: webhooks.workspaceId,
      host: webhooks.host,
      createdAt: webhooks.createdAt,
      lastDeliveredAt: webhooks.lastDeliveredAt,
      lastError: webhooks.lastError,
      disabledAt: webhooks.disabledAt,
      pending: sql<number>`(count(${webhookDeliveries.id}) filter (where ${isPending}))::int`,
      givenUp: sql<number>`(count(${webhookDeliveries.id}) filter (where ${isNotNull(failedAt)}))::int`,
    })
    .from(webhooks)
    .leftJoin(webhookDeliveries, eq(webhookDeliveries.webhookId, webhooks.id))
    .where(and(eq(webhooks.workspaceId, workspaceId), id === undefined ? undefined : eq(webhooks.id, id)))
    .groupBy(webhooks.id)
    .orderBy(asc(webhooks.createdAt), asc(webhooks.id))
    .execute();
}

const isUuid = (text: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(text);

function unknownWebhook(id: string): HealthError {
  return new HealthError("webhook_not_found", `no webhook ${isUuid(id) ? id : "has this id"}`, {
    next: "See `oci-node alert webhook ls`.",
  });
}

function tooMany(): HealthError {
  return new HealthError(
    "too_many_webhooks",
    `the workspace has ${webhooksMax} webhooks, and may not have more`,
    {
      next: "Remove one with `oci-node alert webhook rm`.",
    },
  );
}
