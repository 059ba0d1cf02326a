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
  const rows = sql.join(
    demands.map(
      ({ deploymentId, queued, inFlight }) => sql`(${deploymentId}, ${queued}::int, ${inFlight}::int)`,
    ),
    sql`, `,
  );
  // Nothing waits for the answer to what was before it.
  await Promise.all([
    tx
      .update(deployments)
      .set({ lastUsedAt: sql`now()` })
      .where(inArray(deployments.id, lockedIn(tx, ids))),
    tx.execute(sql`
      insert into ${deploymentDemands} (deployment_id, gateway_id, queued, in_flight)
      select d.deployment_id, ${gatewayId}::uuid, d.queued, d.in_flight from (values ${rows}) as d (deployment_id, queued, in_flight)
      where d.queued + d.in_flight > 0 and exists (select 1 from ${deployments} where id = d.deployment_id)
      on conflict (deployment_id, gateway_id)
      do update set queued = excluded.queued, in_flight = excluded.in_flight, seen_at = now()`),
    tx.delete(deploymentDemands).where(
      and(
        eq(deploymentDemands.gatewayId, gatewayId),
        inArray(
          deploymentDemands.deploymentId,
          demands
            .filter(({ queued, inFlight }) => queued + inFlight === 0)
            .map(({ deploymentId }) => deploymentId),
        ),
      ),
    ),
  ]);
}

function lockedIn(tx: Queries, ids: readonly string[]) {
  return tx
    .select({ id: deployments.id })
    .from(deployments)
    .where(inArray(deployments.id, [...ids]))
    .orderBy(deployments.id)
    .for("no key update");
}
