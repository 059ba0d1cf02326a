import { and, eq, inArray, lt, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { deploymentDemands, deployments } from "../db/schema-endpoint.ts";
import type { Demand } from "./endpoint.ts";

export interface DemandOf extends Demand {
  readonly deploymentId: string;
}

/** What gateways have to do, as each writes it down for all. */
export class DemandStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async write(gatewayId: string, demands: readonly DemandOf[]): Promise<void> {
    await this.#database.transaction((tx) => writeDemands(tx, gatewayId, demands));
  }

  /** What a gateway that ends leaves; and what those left that are gone for long. */
  async clear(gatewayId: string): Promise<void> {
    await this.#database.query((db) =>
      db.delete(deploymentDemands).where(eq(deploymentDemands.gatewayId, gatewayId)),
    );
  }

  async clearAbandoned(): Promise<void> {
    await this.#database.query((db) =>
      db.delete(deploymentDemands).where(lt(deploymentDemands.seenAt, sql`now() - interval '1 minute'`)),
    );
  }
}

/** Nothing to do is no row. What is of a deployment that is gone by now is left out. */
export async function writeDemands(
  tx: Queries,
  gatewayId: string,
  demands: readonly DemandOf[],
): Promise<void> {
  if (demands.length === 0) return;
  // In one order everywhere, so that gateways do not wait for each other in a circle.
  const ids = demands.map(({ deploymentId }) => deploymentId).sort();
  const used = await tx
    .update(deployments)
    .set({ lastUsedAt: sql`now()` })
    .where(
      inArray(
        deployments.id,
        tx
          .select({ id: deployments.id })
          .from(deployments)
          .where(inArray(deployments.id, ids))
          .orderBy(deployments.id)
          .for("no key update"),
      ),
    )
    .returning({ id: deployments.id });
  const there = new Set(used.map(({ id }) => id));
  const rows = demands.filter(({ deploymentId }) => there.has(deploymentId));
  const some = rows.filter(({ queued, inFlight }) => queued + inFlight > 0);
  const none = rows.filter(({ queued, inFlight }) => queued + inFlight === 0);
  if (some.length > 0)
    await tx
      .insert(deploymentDemands)
      .values(some.map((demand) => ({ ...demand, gatewayId, seenAt: sql`now()` })))
      .onConflictDoUpdate({
        target: [deploymentDemands.deploymentId, deploymentDemands.gatewayId],
        set: { queued: sql`excluded.queued`, inFlight: sql`excluded.in_flight`, seenAt: sql`now()` },
      });
  if (none.length > 0)
    await tx.delete(deploymentDemands).where(
      and(
        eq(deploymentDemands.gatewayId, gatewayId),
        inArray(
          deploymentDemands.deploymentId,
          none.map(({ deploymentId }) => deploymentId),
        ),
      ),
    );
}
