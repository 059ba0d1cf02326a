import { asc, eq, sql } from "drizzle-orm";
import type { Database, Subscription } from "../db/database.ts";
import { controlProcesses } from "../db/schema-cluster.ts";

/** A gateway or scheduler, and the key-encryption keys that it can use. */
export interface ControlProcess {
  readonly id: string;
  readonly host: string;
  readonly roles: readonly string[];
  readonly keyIds: readonly string[];
  readonly version: string;
}

/** One that was not heard of for so long is gone. */
export const processLifeSeconds = 120;

/** The gateways and schedulers that live. */
export class ControlProcessStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Says that a process lives. Rows of those that are gone are cleared away. */
  async beat(process: ControlProcess): Promise<void> {
    const row = { ...process, roles: [...process.roles], keyIds: [...process.keyIds] };
    await this.#database.query((db) =>
      db
        .insert(controlProcesses)
        .values(row)
        .onConflictDoUpdate({
          target: controlProcesses.id,
          set: { keyIds: row.keyIds, seenAt: sql`now()` },
        }),
    );
    await this.#database.query((db) =>
      db
        .delete(controlProcesses)
        .where(sql`${controlProcesses.seenAt} < now() - make_interval(secs => ${processLifeSeconds})`),
    );
  }

  async leave(id: string): Promise<void> {
    await this.#database.query((db) => db.delete(controlProcesses).where(eq(controlProcesses.id, id)));
  }

  /** Those that were heard of lately. */
  async live(): Promise<(ControlProcess & { readonly seenAt: Date })[]> {
    const rows = await this.#database.query((db) =>
      db
        .select()
        .from(controlProcesses)
        .where(sql`${controlProcesses.seenAt} >= now() - make_interval(secs => ${processLifeSeconds})`)
        .orderBy(asc(controlProcesses.host), asc(controlProcesses.id)),
    );
    return rows as (ControlProcess & { seenAt: Date })[];
  }

  /** Calls back when keys were made or another became primary, and after each gap in which that may have been missed. */
  async onChange(look: () => void): Promise<Subscription> {
    return await this.#database.listen("keys_changed", look, look);
  }
}
