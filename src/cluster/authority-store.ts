import { desc, sql } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { clusterAuthorities } from "../db/schema-cluster.ts";

/** An authority of the cluster, its private half sealed. */
export interface AuthorityRow {
  /** SHA-256 (hex) of the certificate's DER. */
  readonly id: string;
  readonly certificatePem: string;
  readonly wrappedPrivateKey: Uint8Array;
  /** The key-encryption key. */
  readonly keyId: string;
}

const makeLock = 7_362_019_447;

/** The rows of the cluster's authorities. */
export class AuthorityStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** The newest, which signs, first. */
  async list(): Promise<AuthorityRow[]> {
    return await this.#database.query((db) =>
      db
        .select()
        .from(clusterAuthorities)
        .orderBy(...newestFirst),
    );
  }

  /** As {@link list}; the first is made when there is none. Of several processes that find none, one makes it. */
  async ensure(make: () => Promise<AuthorityRow>): Promise<AuthorityRow[]> {
    const found = await this.list();
    if (found.length > 0) return found;
    await this.#database.transaction(async (tx) => {
      await tx.execute(sql`select pg_advisory_xact_lock(${makeLock})`);
      const known = await tx.select({ id: clusterAuthorities.id }).from(clusterAuthorities);
      if (known.length === 0) await tx.insert(clusterAuthorities).values(await make());
    });
    return await this.list();
  }
}

const newestFirst = [desc(clusterAuthorities.createdAt), desc(clusterAuthorities.id)];
