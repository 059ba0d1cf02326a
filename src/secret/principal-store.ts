import { and, asc, desc, eq, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { secrets, secretVersions } from "../db/schema.ts";
import { appendVersion, type SealedVersion, type SecretRow } from "./version-store.ts";

/** Whose credential it is, and where. */
export interface Principal {
  readonly workspaceId: string;
  readonly registry: string;
  readonly principal: string;
}

/** A secret of a principal with the versions that are kept of it, the current one first. */
export interface HeldSecret {
  readonly row: SecretRow;
  readonly versions: readonly SealedVersion[];
}

/** What is to become of a credential: nothing, the next version of a secret, or a secret under the first name that is free. */
export type Keep =
  | { readonly leave: SecretRow }
  | { readonly row: SecretRow; readonly next: SealedVersion }
  | { readonly id: string; readonly type: string; readonly names: readonly NamedVersion[] };

export interface NamedVersion {
  readonly name: string;
  readonly sealed: SealedVersion;
}

/** Secrets that are looked at of one principal; more than one are the work of people who chose names. */
const secretsMax = 20;

/**
 * Shows the secrets of a principal, the latest first, and does what is decided about them, while nobody else decides about the
 * same principal: of two builds at once the second finds what the first has made. undefined: every name was taken.
 */
export async function decideForPrincipal(
  database: Database,
  about: Principal,
  decide: (held: readonly HeldSecret[]) => Keep,
): Promise<SecretRow | undefined> {
  return database.transaction(async (tx) => {
    const { workspaceId, registry, principal } = about;
    const place = JSON.stringify([workspaceId, registry, principal]);
    await tx.execute(sql`select pg_advisory_xact_lock(hashtextextended(${place}, 0))`);
    const keep = decide(await heldBy(tx, about));
    if ("leave" in keep) return keep.leave;
    if ("next" in keep) return await appendVersion(tx, keep.row, keep.next);
    for (const { name, sealed } of keep.names) {
      const row = { id: keep.id, workspaceId, name, registry, credentialType: keep.type, principal };
      const [made] = await tx
        .insert(secrets)
        .values({ ...row, currentVersion: sealed.version })
        .onConflictDoNothing()
        .returning();
      if (made === undefined) continue;
      await tx.insert(secretVersions).values({ secretId: keep.id, ...sealed });
      return made;
    }
    return undefined;
  });
}

async function heldBy(tx: Queries, about: Principal): Promise<HeldSecret[]> {
  const rows = await tx
    .select()
    .from(secrets)
    .where(
      and(
        eq(secrets.workspaceId, about.workspaceId),
        eq(secrets.registry, about.registry),
        eq(secrets.principal, about.principal),
      ),
    )
    .orderBy(desc(secrets.updatedAt), asc(secrets.name))
    .limit(secretsMax)
    .for("update");
  const held: HeldSecret[] = [];
  for (const row of rows) {
    const versions = await tx
      .select()
      .from(secretVersions)
      .where(eq(secretVersions.secretId, row.id))
      .orderBy(desc(secretVersions.version));
    held.push({ row, versions });
  }
  return held;
}
