import type { secretHealth } from "../db/schema-health.ts";
import type { CredentialRights } from "../registry/rights.ts";
import { type HealthState, healthStates, type SecretHealth } from "./health.ts";

export type HealthRow = typeof secretHealth.$inferSelect;

/** In place of a time that does not come: the column has none for that. */
export const never = new Date("9999-01-01T00:00:00Z");

/** A row with what its secret's row says. */
export function toHealth(row: HealthRow, secret: { name: string; registry: string }): SecretHealth {
  return {
    secretId: row.secretId,
    workspaceId: row.workspaceId,
    secretName: secret.name,
    registry: secret.registry,
    version: row.version,
    state: stateOf(row.state),
    code: row.code ?? undefined,
    reason: row.reason ?? undefined,
    next: row.next ?? undefined,
    since: row.since,
    checkedAt: row.checkedAt ?? undefined,
    lastOkAt: row.lastOkAt ?? undefined,
    nextCheckAt: row.nextCheckAt < never ? row.nextCheckAt : undefined,
    failures: row.failures,
    rights: rightsOf(row.rights),
    expiresAt: row.expiresAt ?? undefined,
  };
}

/** What is written of it. */
export function toRow(health: SecretHealth): typeof secretHealth.$inferInsert {
  return {
    secretId: health.secretId,
    workspaceId: health.workspaceId,
    version: health.version,
    state: health.state,
    code: health.code ?? null,
    reason: health.reason ?? null,
    next: health.next ?? null,
    since: health.since,
    checkedAt: health.checkedAt ?? null,
    lastOkAt: health.lastOkAt ?? null,
    nextCheckAt: health.nextCheckAt ?? never,
    failures: health.failures,
    rights: health.rights,
    expiresAt: health.expiresAt ?? null,
  };
}

function stateOf(text: string): HealthState {
  return healthStates.find((state) => state === text) ?? "unknown";
}

function rightsOf(text: string): CredentialRights {
  return text === "pull" || text === "push" ? text : "unknown";
}
