import { and, asc, eq, gt, ne, sql } from "drizzle-orm";
import type { PgColumn, PgTable } from "drizzle-orm/pg-core";
import type { Database } from "../db/database.ts";
import { workspaces } from "../db/schema.ts";
import { clusterAuthorities, identityKeys } from "../db/schema-cluster.ts";

/** What is under key-encryption keys: `workspace`, `identity key`, `cluster authority`. */
export type WrappedKind = "workspace" | "identity key" | "cluster authority";

/** A row that a key-encryption key protects. */
export interface WrappedRow {
  readonly kind: WrappedKind;
  readonly id: string;
  readonly keyId: string;
  readonly wrapped: Uint8Array;
}

interface WrappedTable {
  readonly table: PgTable;
  readonly id: PgColumn;
  readonly keyId: PgColumn;
  readonly wrapped: PgColumn;
  /** The wrapped column's name as drizzle has it. */
  readonly field: string;
}

const tables: Readonly<Record<WrappedKind, WrappedTable>> = {
  workspace: {
    table: workspaces,
    id: workspaces.id,
    keyId: workspaces.keyId,
    wrapped: workspaces.wrappedKey,
    field: "wrappedKey",
  },
  "identity key": {
    table: identityKeys,
    id: identityKeys.id,
    keyId: identityKeys.keyId,
    wrapped: identityKeys.wrappedPrivateKey,
    field: "wrappedPrivateKey",
  },
  "cluster authority": {
    table: clusterAuthorities,
    id: clusterAuthorities.id,
    keyId: clusterAuthorities.keyId,
    wrapped: clusterAuthorities.wrappedPrivateKey,
    field: "wrappedPrivateKey",
  },
};

export const wrappedKinds = Object.keys(tables) as WrappedKind[];

/** The rows that key-encryption keys protect, whatever they are; it sees ciphertext only. */
export class WrappedRowStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Rows that are not under a key, by id, from after one on. */
  async notUnder(
    kind: WrappedKind,
    keyId: string,
    options: { readonly after: string | undefined; readonly limit: number },
  ): Promise<WrappedRow[]> {
    const of = tables[kind];
    const rows = await this.#database.query((db) =>
      db
        .select({ id: of.id, keyId: of.keyId, wrapped: of.wrapped })
        .from(of.table)
        .where(and(ne(of.keyId, keyId), options.after === undefined ? undefined : gt(of.id, options.after)))
        .orderBy(asc(of.id))
        .limit(options.limit),
    );
    return rows.map((row) => ({ kind, ...row }) as WrappedRow);
  }

  async countNotUnder(keyId: string): Promise<number> {
    let count = 0;
    for (const of of Object.values(tables)) {
      const [row] = await this.#database.query((db) =>
        db.select({ count: sql<number>`count(*)::int` }).from(of.table).where(ne(of.keyId, keyId)),
      );
      count += row?.count ?? 0;
    }
    return count;
  }

  /** Puts what is wrapped anew in the place of what was read. @returns false: the row is another by now, or gone */
  async replace(row: WrappedRow, next: Pick<WrappedRow, "keyId" | "wrapped">): Promise<boolean> {
    const of = tables[row.kind];
    const replaced = await this.#database.query((db) =>
      db
        .update(of.table)
        .set({ keyId: next.keyId, [of.field]: next.wrapped })
        .where(and(eq(of.id, row.id), eq(of.keyId, row.keyId), eq(of.wrapped, row.wrapped)))
        .returning({ id: of.id }),
    );
    return replaced.length > 0;
  }
}
