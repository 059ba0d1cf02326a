import { and, eq, inArray, isNull, notExists, sql } from "drizzle-orm";
import { placedStates } from "../container/state.ts";
import type { Database, Queries } from "../db/database.ts";
import { containers, workers } from "../db/schema.ts";
import { workerIdentities } from "../db/schema-cluster.ts";

/**
 * The workers of earlier versions, in which each chose its own id and none had a certificate: rows without an identity.
 */
export class FormerWorkerStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Gives all containers of a former worker, ended ones too, to the worker that it has become, and forgets the former. Only
   * for a caller who knows that the two are one, by more than what the worker says: an id was never a secret.
   *
   * @returns ids of those that have not ended; undefined when there is no such former worker, or its successor does not count
   */
  async succeed(formerId: string, workerId: string): Promise<string[] | undefined> {
    return this.#database.transaction(async (tx) => {
      const [successor] = await tx
        .select({ id: workerIdentities.workerId })
        .from(workerIdentities)
        .where(and(eq(workerIdentities.workerId, workerId), isNull(workerIdentities.revokedAt)))
        .for("share");
      if (successor === undefined) return undefined;
      const gone = await tx
        .delete(workers)
        .where(and(eq(workers.id, formerId), withoutIdentity(tx)))
        .returning({ id: workers.id });
      if (gone.length === 0) return undefined;
      const living = await tx
        .select({ id: containers.id })
        .from(containers)
        .where(and(eq(containers.workerId, formerId), inArray(containers.state, [...placedStates])))
        .for("update");
      await tx.update(containers).set({ workerId }).where(eq(containers.workerId, formerId));
      return living.map(({ id }) => id);
    });
  }
}

/** Of a row of the workers: that it is one of an earlier version. */
export function withoutIdentity(tx: Queries) {
  return notExists(
    tx.select({ one: sql`1` }).from(workerIdentities).where(eq(workerIdentities.workerId, workers.id)),
  );
}
