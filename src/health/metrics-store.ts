import { and, asc, count, eq, inArray, isNotNull, isNull, ne, sql } from "drizzle-orm";
import { type ContainerState, livingStates } from "../container/state.ts";
import type { Database } from "../db/database.ts";
import { containers, secrets, workers, workspaces } from "../db/schema.ts";
import { secretHealth, webhookDeliveries, webhooks } from "../db/schema-health.ts";
import type { CredentialRights } from "../registry/rights.ts";
import { opaqueType } from "../secret/opaque.ts";
import type { HealthState } from "./health.ts";

/** What a scrape tells, as it stands in the database now. Names, never values. */
export interface MetricsSnapshot {
  readonly workspaces: readonly string[];
  readonly secrets: readonly {
    readonly workspace: string;
    readonly secret: string;
    readonly registry: string;
    readonly state: HealthState;
    readonly rights: CredentialRights;
    readonly expiresAt: Date | null;
    readonly checkedAt: Date | null;
  }[];
  /** Those that have not ended. */
  readonly containers: readonly {
    readonly workspace: string;
    readonly state: ContainerState;
    readonly count: number;
  }[];
  readonly deliveries: readonly {
    readonly workspace: string;
    readonly pending: number;
    readonly givenUp: number;
  }[];
  /** Undefined: not for one workspace to know. */
  readonly workers: readonly { readonly state: string; readonly count: number }[] | undefined;
}

/** The values of the metrics, each kind by one statement. */
export class MetricsStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @param workspaceId undefined: all workspaces, and what belongs to none */
  async read(workspaceId: string | undefined): Promise<MetricsSnapshot> {
    const only = workspaceId === undefined ? undefined : eq(workspaces.id, workspaceId);
    const [names, secretRows, containerRows, deliveryRows, workerRows] = await Promise.all([
      this.#database.query((db) =>
        db.select({ name: workspaces.name }).from(workspaces).where(only).orderBy(asc(workspaces.name)),
      ),
      this.#secrets(only),
      this.#containers(only),
      this.#deliveries(only),
      workspaceId === undefined ? this.#workers() : undefined,
    ]);
    return {
      workspaces: names.map(({ name }) => name),
      secrets: secretRows.map(({ state, rights, ...row }) => ({
        ...row,
        state: (state ?? "unknown") as HealthState,
        rights: (rights ?? "unknown") as CredentialRights,
      })),
      containers: containerRows.map((row) => ({ ...row, state: row.state as ContainerState })),
      deliveries: deliveryRows,
      workers: workerRows,
    };
  }

  /** What is known of a version before the current one is not known of the secret. */
  #secrets(only: ReturnType<typeof eq> | undefined) {
    return this.#database.query((db) =>
      db
        .select({
          workspace: workspaces.name,
          secret: secrets.name,
          registry: secrets.registry,
          state: secretHealth.state,
          rights: secretHealth.rights,
          expiresAt: secretHealth.expiresAt,
          checkedAt: secretHealth.checkedAt,
        })
        .from(secrets)
        .innerJoin(workspaces, eq(workspaces.id, secrets.workspaceId))
        .leftJoin(
          secretHealth,
          and(eq(secretHealth.secretId, secrets.id), eq(secretHealth.version, secrets.currentVersion)),
        )
        .where(and(only, ne(secrets.credentialType, opaqueType)))
        .orderBy(asc(workspaces.name), asc(secrets.name)),
    );
  }

  #containers(only: ReturnType<typeof eq> | undefined) {
    return this.#database.query((db) =>
      db
        .select({ workspace: workspaces.name, state: containers.state, count: count() })
        .from(containers)
        .innerJoin(workspaces, eq(workspaces.id, containers.workspaceId))
        .where(and(inArray(containers.state, [...livingStates]), only))
        .groupBy(workspaces.name, containers.state),
    );
  }

  #deliveries(only: ReturnType<typeof eq> | undefined) {
    const { id, deliveredAt, failedAt } = webhookDeliveries;
    const isPending = and(isNull(deliveredAt), isNull(failedAt));
    return this.#database.query((db) =>
      db
        .select({
          workspace: workspaces.name,
          pending: sql<number>`(count(${id}) filter (where ${isPending}))::int`,
          givenUp: sql<number>`(count(${id}) filter (where ${isNotNull(failedAt)}))::int`,
        })
        .from(webhooks)
        .innerJoin(workspaces, eq(workspaces.id, webhooks.workspaceId))
        .leftJoin(webhookDeliveries, eq(webhookDeliveries.webhookId, webhooks.id))
        .where(only)
        .groupBy(workspaces.name),
    );
  }

  #workers() {
    return this.#database.query((db) =>
      db.select({ state: workers.state, count: count() }).from(workers).groupBy(workers.state),
    );
  }
}
