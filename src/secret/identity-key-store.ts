import { asc, inArray, sql } from "drizzle-orm";
import type { JWK } from "jose";
import type { Database, Queries } from "../db/database.ts";
import { identityKeys } from "../db/schema-cluster.ts";
import { mayWriteUnder } from "./key-store.ts";

/** A key that signs tokens of workspaces: its public half, and the private one sealed. */
export interface IdentityKeyRow {
  /** `kid`: the thumbprint of the public half (RFC 7638). */
  readonly id: string;
  readonly publicJwk: JWK;
  readonly wrappedPrivateKey: Uint8Array;
  /** The key-encryption key. */
  readonly keyId: string;
  readonly createdAt: Date;
}

const changeLock = 7_362_019_444;

/** The rows of the signing keys. */
export class IdentityKeyStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** The oldest first. */
  async list(): Promise<IdentityKeyRow[]> {
    const rows = await this.#database.query((db) =>
      db.select().from(identityKeys).orderBy(asc(identityKeys.createdAt), asc(identityKeys.id)),
    );
    return rows as IdentityKeyRow[];
  }

  /**
   * Adds and removes what `change` decides of the keys as they are, and gives them as they are then. An advisory lock
   * lets one process at a time do so, so that several that find no key make one. Where another key-encryption key became
   * primary meanwhile, `change` is asked again.
   */
  async change(
    change: (keys: readonly IdentityKeyRow[]) => Promise<{
      readonly add?: IdentityKeyRow;
      readonly remove: readonly string[];
    }>,
  ): Promise<IdentityKeyRow[]> {
    const attempt = async (tx: Queries): Promise<boolean> => {
      await tx.execute(sql`select pg_advisory_xact_lock(${changeLock})`);
      const keys = await tx
        .select()
        .from(identityKeys)
        .orderBy(asc(identityKeys.createdAt), asc(identityKeys.id));
      const { add, remove } = await change(keys as IdentityKeyRow[]);
      if (add !== undefined && !(await mayWriteUnder(tx, add.keyId))) return false;
      if (remove.length > 0) await tx.delete(identityKeys).where(inArray(identityKeys.id, [...remove]));
      if (add !== undefined) await tx.insert(identityKeys).values(add);
      return true;
    };
    while (!(await this.#database.transaction(attempt))) {
      // It was sealed under a key that is not the one to write with any more.
    }
    return this.list();
  }
}
