import { and, asc, eq, isNull, ne, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { workspaces } from "../db/schema.ts";
import { clusterAuthorities, encryptionKeys, identityKeys } from "../db/schema-cluster.ts";
import { SecretError } from "./error.ts";
import type { KeyKind } from "./kek.ts";

/** What the database knows of a key-encryption key; never the key. */
export interface KeyRow {
  readonly id: string;
  readonly kind: KeyKind;
  readonly primary: boolean;
  readonly createdAt: Date;
  readonly exportedAt: Date | undefined;
  readonly retiredAt: Date | undefined;
}

/** How many rows are under a key. */
export interface KeyUsage {
  readonly workspaces: number;
  readonly identityKeys: number;
  readonly authorities: number;
}

export type SeenKey = Pick<KeyRow, "id" | "kind"> & Partial<Pick<KeyRow, "exportedAt">>;

const primaryLock = 7_362_019_445;

/**
 * Holds who writes a row under a key until the end of its transaction against a change of the primary key.
 *
 * @returns whether the key is the one to write with; false: another one has become primary meanwhile
 */
export async function mayWriteUnder(tx: Queries, keyId: string): Promise<boolean> {
  await tx.execute(sql`select pg_advisory_xact_lock_shared(${primaryLock})`);
  const others = await tx
    .select({ id: encryptionKeys.id })
    .from(encryptionKeys)
    .where(and(eq(encryptionKeys.primary, true), ne(encryptionKeys.id, keyId)));
  return others.length === 0;
}

/** The rows of the key-encryption keys. */
export class KeyStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async primaryId(): Promise<string | undefined> {
    const [row] = await this.#database.query((db) =>
      db.select({ id: encryptionKeys.id }).from(encryptionKeys).where(eq(encryptionKeys.primary, true)),
    );
    return row?.id;
  }

  /** By age. */
  async list(): Promise<KeyRow[]> {
    const rows = await this.#database.query((db) =>
      db.select().from(encryptionKeys).orderBy(asc(encryptionKeys.createdAt), asc(encryptionKeys.id)),
    );
    return rows.map(({ kind, exportedAt, retiredAt, ...row }) => ({
      ...row,
      kind: kind as KeyKind,
      exportedAt: exportedAt ?? undefined,
      retiredAt: retiredAt ?? undefined,
    }));
  }

  /** Notes keys that a process has. What is known of them stays. */
  async register(keys: readonly SeenKey[]): Promise<void> {
    if (keys.length === 0) return;
    const known = new Map((await this.list()).map((row) => [row.id, row]));
    const news = keys.filter((key) => {
      const row = known.get(key.id);
      return row === undefined || (row.exportedAt === undefined && key.exportedAt !== undefined);
    });
    if (news.length === 0) return;
    await this.#database.query((db) =>
      db
        .insert(encryptionKeys)
        .values(news.map(({ id, kind, exportedAt }) => ({ id, kind, exportedAt: exportedAt ?? null })))
        .onConflictDoUpdate({
          target: encryptionKeys.id,
          set: { exportedAt: sql`coalesce(${encryptionKeys.exportedAt}, excluded.exported_at)` },
        }),
    );
  }

  /** Makes a key primary where none is. @returns the id of the one that is primary then */
  async adopt(key: SeenKey): Promise<string> {
    return await this.#database.transaction(async (tx) => {
      await tx.execute(sql`select pg_advisory_xact_lock(${primaryLock})`);
      const [primary] = await tx
        .select({ id: encryptionKeys.id })
        .from(encryptionKeys)
        .where(eq(encryptionKeys.primary, true));
      if (primary !== undefined) return primary.id;
      await setPrimary(tx, key);
      return key.id;
    });
  }

  /** Rows that are written from now on are under this key; whoever is writing one is waited for. */
  async makePrimary(key: SeenKey): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.execute(sql`select pg_advisory_xact_lock(${primaryLock})`);
      await setPrimary(tx, key);
    });
    await this.announce();
  }

  /** Has the other processes look for keys at once. */
  async announce(): Promise<void> {
    await this.#database.query((db) => db.execute(sql`select pg_notify('keys_changed', '')`));
  }

  /** @throws SecretError `not_found`, `in_use` */
  async retire(id: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      await tx.execute(sql`select pg_advisory_xact_lock(${primaryLock})`);
      const [row] = await tx.select().from(encryptionKeys).where(eq(encryptionKeys.id, id));
      if (row === undefined) throw unknownKey(id);
      if (row.primary) {
        throw new SecretError("in_use", `the key ${id} is primary: what is new is wrapped with it`, {
          next: "Go on to another one first: `oci-node key rotate`.",
        });
      }
      const under = total((await usageIn(tx)).get(id));
      if (under > 0) {
        throw new SecretError(
          "in_use",
          `${under} ${under === 1 ? "row is" : "rows are"} under the key ${id}`,
          {
            next: "Finish the rotation first: `oci-node key ls` names the primary key, `oci-node key rotate --to ID` goes on to it.",
          },
        );
      }
      await tx
        .update(encryptionKeys)
        .set({ retiredAt: sql`now()` })
        .where(and(eq(encryptionKeys.id, id), isNull(encryptionKeys.retiredAt)));
    });
  }

  /** By key, keys that nobody registered included. */
  async usage(): Promise<ReadonlyMap<string, KeyUsage>> {
    return await this.#database.query(usageIn);
  }
}

/** All rows under a key. */
export function total(usage: KeyUsage | undefined): number {
  return usage === undefined ? 0 : usage.workspaces + usage.identityKeys + usage.authorities;
}

export function unknownKey(id: string): SecretError {
  return new SecretError("not_found", `no key-encryption key ${id}`, { next: "See `oci-node key ls`." });
}

async function setPrimary(tx: Queries, { id, kind, exportedAt }: SeenKey): Promise<void> {
  await tx.update(encryptionKeys).set({ primary: false }).where(eq(encryptionKeys.primary, true));
  await tx
    .insert(encryptionKeys)
    .values({ id, kind, exportedAt: exportedAt ?? null, primary: true })
    .onConflictDoUpdate({ target: encryptionKeys.id, set: { primary: true, retiredAt: null } });
}

async function usageIn(db: Queries): Promise<Map<string, KeyUsage>> {
  const all = new Map<string, KeyUsage>();
  const none: KeyUsage = { workspaces: 0, identityKeys: 0, authorities: 0 };
  const tables = [
    ["workspaces", workspaces],
    ["identityKeys", identityKeys],
    ["authorities", clusterAuthorities],
  ] as const;
  for (const [name, table] of tables) {
    const rows = await db
      .select({ keyId: table.keyId, count: sql<number>`count(*)::int` })
      .from(table)
      .groupBy(table.keyId);
    for (const { keyId, count } of rows) all.set(keyId, { ...(all.get(keyId) ?? none), [name]: count });
  }
  return all;
}
