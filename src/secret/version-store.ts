import { and, eq, lte, sql } from "drizzle-orm";
import type { Queries } from "../db/database.ts";
import { secrets, secretVersions } from "../db/schema.ts";

export type SecretRow = typeof secrets.$inferSelect;

/** A sealed version: everything that stands in its row. */
export interface SealedVersion {
  readonly version: number;
  readonly keyId: string;
  readonly wrappedDataKey: Uint8Array;
  readonly nonce: Uint8Array;
  readonly ciphertext: Uint8Array;
}

/** Versions that are kept, the current one among them. */
const versionsKept = 10;

/** Stores the next version of a secret whose row is locked, and drops the oldest beyond those that are kept. */
export async function appendVersion(tx: Queries, row: SecretRow, sealed: SealedVersion): Promise<SecretRow> {
  const ofRow = eq(secretVersions.secretId, row.id);
  await tx.insert(secretVersions).values({ secretId: row.id, ...sealed });
  await tx
    .delete(secretVersions)
    .where(and(ofRow, lte(secretVersions.version, sealed.version - versionsKept)));
  const [updated] = await tx
    .update(secrets)
    .set({ currentVersion: sealed.version, updatedAt: sql`now()` })
    .where(eq(secrets.id, row.id))
    .returning();
  return updated ?? row;
}
