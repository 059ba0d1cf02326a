import { sql } from "drizzle-orm";
import {
  bigserial,
  foreignKey,
  index,
  integer,
  jsonb,
  pgTable,
  text,
  unique,
  uuid,
} from "drizzle-orm/pg-core";
import { at, bytea, createdAt } from "./columns.ts";
import { secrets, workspaces } from "./schema.ts";

/** How a secret's current version fares at its registry; the health room's `SecretHealth`. Never a value. */
export const secretHealth = pgTable(
  "secret_health",
  {
    secretId: uuid("secret_id").primaryKey(),
    workspaceId: uuid("workspace_id").notNull(),
    /** The version that was checked. */
    version: integer("version").notNull(),
    /** `ok`, `expiring`, `failing`, `unknown`. */
    state: text("state").notNull(),
    /** A registry's or credential's error code; absent when all is well. */
    code: text("code"),
    reason: text("reason"),
    next: text("next"),
    since: at("since").notNull().defaultNow(),
    checkedAt: at("checked_at"),
    lastOkAt: at("last_ok_at"),
    nextCheckAt: at("next_check_at").notNull().defaultNow(),
    /** Checks in a row that were not ok. */
    failures: integer("failures").notNull().default(0),
    /** `pull`, `push` (wider than needed), `unknown`. */
    rights: text("rights").notNull().default("unknown"),
    /** When the credential ends, if that is known from itself or its owner. */
    expiresAt: at("expires_at"),
    claimedBy: text("claimed_by"),
    leaseUntil: at("lease_until"),
    createdAt: createdAt(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (table) => [
    foreignKey({
      name: "secret_health_secret",
      columns: [table.secretId],
      foreignColumns: [secrets.id],
    }).onDelete("cascade"),
    index("secret_health_due").on(table.nextCheckAt),
    index("secret_health_workspace").on(table.workspaceId, table.state),
  ],
);

/** What people are told of secrets. A key of its own keeps the same news from being told twice. */
export const alerts = pgTable(
  "alerts",
  {
    id: uuid("id").primaryKey(),
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    secretId: uuid("secret_id").notNull(),
    secretName: text("secret_name").notNull(),
    /** `failing`, `recovered`, `expiring`. */
    kind: text("kind").notNull(),
    dedupeKey: text("dedupe_key").notNull().unique(),
    message: text("message").notNull(),
    /** The health room's `AlertBody`. */
    body: jsonb("body").notNull(),
    createdAt: createdAt(),
  },
  (table) => [
    index("alerts_workspace").on(table.workspaceId, table.createdAt),
    index("alerts_secret").on(table.secretId, table.createdAt),
  ],
);

/** Where a workspace's alerts go. Address and signing secret are sealed like a secret's value: addresses carry tokens. */
export const webhooks = pgTable(
  "webhooks",
  {
    id: uuid("id").primaryKey(),
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    /** Host of the address, for people. */
    host: text("host").notNull(),
    /** The workspace key. */
    keyId: text("key_id").notNull(),
    wrappedDataKey: bytea("wrapped_data_key").notNull(),
    nonce: bytea("nonce").notNull(),
    ciphertext: bytea("ciphertext").notNull(),
    lastDeliveredAt: at("last_delivered_at"),
    lastError: text("last_error"),
    /** Its receiver wants nothing more (410). */
    disabledAt: at("disabled_at"),
    createdAt: createdAt(),
  },
  (table) => [index("webhooks_workspace").on(table.workspaceId)],
);

/** One alert on its way to one webhook. */
export const webhookDeliveries = pgTable(
  "webhook_deliveries",
  {
    id: bigserial("id", { mode: "number" }).primaryKey(),
    webhookId: uuid("webhook_id").notNull(),
    alertId: uuid("alert_id").notNull(),
    attempts: integer("attempts").notNull().default(0),
    nextAttemptAt: at("next_attempt_at").notNull().defaultNow(),
    deliveredAt: at("delivered_at"),
    /** Given up. */
    failedAt: at("failed_at"),
    lastError: text("last_error"),
    claimedBy: text("claimed_by"),
    leaseUntil: at("lease_until"),
    createdAt: createdAt(),
  },
  (table) => [
    unique("webhook_deliveries_once").on(table.webhookId, table.alertId),
    foreignKey({
      name: "webhook_deliveries_webhook",
      columns: [table.webhookId],
      foreignColumns: [webhooks.id],
    }).onDelete("cascade"),
    foreignKey({
      name: "webhook_deliveries_alert",
      columns: [table.alertId],
      foreignColumns: [alerts.id],
    }).onDelete("cascade"),
    index("webhook_deliveries_due").on(table.nextAttemptAt),
    // The next one to a webhook, and those that are under way, however many wait or are done.
    index("webhook_deliveries_open")
      .on(table.webhookId, table.attempts, table.nextAttemptAt)
      .where(sql`delivered_at is null and failed_at is null`),
    index("webhook_deliveries_leased").on(table.webhookId).where(sql`lease_until is not null`),
  ],
);

/**
 * Who did what to which secret, image, container, token, from where. Rows are only ever added: a trigger refuses the rest.
 * No foreign keys: it outlives what it tells of.
 */
export const auditEvents = pgTable(
  "audit_events",
  {
    id: bigserial("id", { mode: "number" }).primaryKey(),
    at: at("at").notNull().defaultNow(),
    /** `token`, `worker`, `node`. */
    actorKind: text("actor_kind").notNull(),
    /** Id of the token, the worker, or the process. */
    actorId: text("actor_id").notNull(),
    actorName: text("actor_name").notNull(),
    role: text("role"),
    workspaceId: uuid("workspace_id"),
    workspaceName: text("workspace_name"),
    /** `secret.create`, `container.run`, … */
    action: text("action").notNull(),
    /** `secret`, `image`, `container`, `token`, `workspace`, `worker`, `key`, `webhook`. */
    targetKind: text("target_kind").notNull(),
    targetId: text("target_id"),
    targetName: text("target_name"),
    /** `ok`, `denied`, `failed`. */
    outcome: text("outcome").notNull(),
    /** Of what failed. */
    code: text("code"),
    /** Of the caller's host. */
    address: text("address"),
    fields: jsonb("fields").notNull().default({}),
  },
  (table) => [
    index("audit_events_workspace").on(table.workspaceId, table.id),
    index("audit_events_at").on(table.at),
    index("audit_events_target").on(table.targetKind, table.targetId),
  ],
);
