import { and, asc, desc, eq, notInArray } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { DbError } from "../db/error.ts";
import { containers, endedContainerStates, images, secrets, secretVersions } from "../db/schema.ts";
import { printable } from "../std/printable.ts";
import { SecretError } from "./error.ts";
import { opaqueType } from "./opaque.ts";
import { type OpaqueUsers, opaqueUsers } from "./opaque-users-store.ts";
import { decideForPrincipal, type HeldSecret, type Keep, type Principal } from "./principal-store.ts";
import { appendVersion, type SealedVersion, type SecretRow } from "./version-store.ts";

export type NewSecretRow = Omit<
  SecretRow,
  "createdAt" | "updatedAt" | "currentVersion" | "repository" | "declaredExpiry"
> &
  Partial<Pick<SecretRow, "repository" | "declaredExpiry">>;

const usersNamedMax = 10;

/** The rows of secrets and their sealed versions; it sees ciphertext only. */
export class SecretStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Throws SecretError `exists` when the workspace has the name already. */
  async insert(secret: NewSecretRow, first: SealedVersion): Promise<SecretRow> {
    try {
      return await this.#database.transaction(async (tx) => {
        const [row] = await tx
          .insert(secrets)
          .values({ ...secret, currentVersion: first.version })
          .returning();
        await tx.insert(secretVersions).values({ secretId: secret.id, ...first });
        return row as SecretRow;
      });
    } catch (error) {
      if (!(error instanceof DbError) || error.constraint !== "secrets_workspace_name") throw error;
      throw new SecretError("exists", `the workspace has a secret ${secret.name} already`, {
        next: "Update it, or choose another name.",
      });
    }
  }

  async find(workspaceId: string, by: { name: string } | { id: string }): Promise<SecretRow | undefined> {
    const which = "name" in by ? eq(secrets.name, by.name) : eq(secrets.id, by.id);
    const [row] = await this.#database.query((db) =>
      db
        .select()
        .from(secrets)
        .where(and(eq(secrets.workspaceId, workspaceId), which)),
    );
    return row;
  }

  /** A secret with its current version, as they stand together at one moment. */
  async findCurrent(
    workspaceId: string,
    by: { name: string } | { id: string },
  ): Promise<{ secret: SecretRow; sealed: SealedVersion } | undefined> {
    const which = "name" in by ? eq(secrets.name, by.name) : eq(secrets.id, by.id);
    const [row] = await this.#database.query((db) =>
      db
        .select({ secret: secrets, sealed: secretVersions })
        .from(secrets)
        .innerJoin(
          secretVersions,
          and(eq(secretVersions.secretId, secrets.id), eq(secretVersions.version, secrets.currentVersion)),
        )
        .where(and(eq(secrets.workspaceId, workspaceId), which)),
    );
    return row;
  }

  async list(workspaceId: string): Promise<SecretRow[]> {
    return this.#database.query((db) =>
      db.select().from(secrets).where(eq(secrets.workspaceId, workspaceId)).orderBy(asc(secrets.name)),
    );
  }

  async findForPrincipal(
    workspaceId: string,
    registry: string,
    principal: string,
  ): Promise<SecretRow | undefined> {
    const [row] = await this.#database.query((db) =>
      db
        .select()
        .from(secrets)
        .where(
          and(
            eq(secrets.workspaceId, workspaceId),
            eq(secrets.registry, registry),
            eq(secrets.principal, principal),
          ),
        )
        .orderBy(desc(secrets.updatedAt), asc(secrets.name))
        .limit(1),
    );
    return row;
  }

  /**
   * Locks a secret, shows its current version, and stores what comes back as the next one; nothing when undefined comes
   * back. Two at once follow each other. undefined: there is no such secret.
   */
  async addVersion(
    workspaceId: string,
    name: string,
    next: (secret: SecretRow, current: SealedVersion | undefined) => Promise<SealedVersion | undefined>,
  ): Promise<{ row: SecretRow; changed: boolean } | undefined> {
    return this.#database.transaction(async (tx) => {
      const mine = and(eq(secrets.workspaceId, workspaceId), eq(secrets.name, name));
      const [row] = await tx.select().from(secrets).where(mine).for("update");
      if (row === undefined) return undefined;
      const ofRow = eq(secretVersions.secretId, row.id);
      const [current] = await tx
        .select()
        .from(secretVersions)
        .where(and(ofRow, eq(secretVersions.version, row.currentVersion)));
      const sealed = await next(row, current);
      if (sealed === undefined) return { row, changed: false };
      return { row: await appendVersion(tx, row, sealed), changed: true };
    });
  }

  /** {@link decideForPrincipal} */
  async decideForPrincipal(
    about: Principal,
    decide: (held: readonly HeldSecret[]) => Keep,
  ): Promise<SecretRow | undefined> {
    return decideForPrincipal(this.#database, about, decide);
  }

  /** Removes a secret; throws SecretError `not_found`, or `in_use` (naming images, containers, endpoints) unless forced. */
  async remove(workspaceId: string, name: string, force: boolean): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const mine = and(eq(secrets.workspaceId, workspaceId), eq(secrets.name, name));
      const [row] = await tx
        .select({ id: secrets.id, type: secrets.credentialType })
        .from(secrets)
        .where(mine)
        .for("update");
      if (row === undefined) throw unknownSecret(name);
      if (!force && row.type === opaqueType) {
        assertUnused(name, await opaqueUsers(tx, workspaceId, name, usersNamedMax));
      } else if (!force) {
        const users = await tx
          .select({ id: images.id, reference: images.reference })
          .from(images)
          .where(and(eq(images.workspaceId, workspaceId), eq(images.credentialSecretId, row.id)))
          .orderBy(asc(images.id))
          .limit(usersNamedMax);
        const living = await tx
          .select({ id: containers.id })
          .from(containers)
          .innerJoin(images, eq(images.id, containers.imageId))
          .where(
            and(
              eq(containers.workspaceId, workspaceId),
              eq(images.credentialSecretId, row.id),
              notInArray(containers.state, endedContainerStates),
            ),
          )
          .orderBy(asc(containers.id))
          .limit(usersNamedMax);
        if (users.length > 0) throw usedSecret(name, users, living);
      }
      await tx.delete(secrets).where(eq(secrets.id, row.id));
    });
  }

  /** Ids of the images whose credentials a secret holds. */
  async imagesUsing(workspaceId: string, secretId: string): Promise<string[]> {
    const rows = await this.#database.query((db) =>
      db
        .select({ id: images.id })
        .from(images)
        .where(and(eq(images.workspaceId, workspaceId), eq(images.credentialSecretId, secretId)))
        .orderBy(asc(images.id)),
    );
    return rows.map((row) => row.id);
  }
}

export function unknownSecret(name: string): SecretError {
  return new SecretError("not_found", `no secret ${printable(name)} in this workspace`, {
    next: "See `oci-node secret ls`.",
  });
}

function assertUnused(name: string, { containerIds, endpointNames }: OpaqueUsers): void {
  const users = [
    ...(endpointNames.length === 0 ? [] : [`endpoints ${endpointNames.join(", ")}`]),
    ...(containerIds.length === 0 ? [] : [`containers that have not ended: ${containerIds.join(", ")}`]),
  ];
  if (users.length === 0) return;
  throw new SecretError("in_use", `secret ${name} is used by ${users.join(", and by ")}`, {
    next: "Remove these first, or force it: what is started with it after that fails.",
  });
}

function usedSecret(
  name: string,
  users: readonly { id: string; reference: string }[],
  living: readonly { id: string }[],
): SecretError {
  const list = users.map((image) => `${image.id} (${image.reference})`).join(", ");
  const ids = living.map(({ id }) => id).join(", ");
  const running = ids === "" ? "" : `, and by containers that have not ended: ${ids}`;
  return new SecretError("in_use", `secret ${name} is used by ${list}${running}`, {
    next: "Remove these images first, or force it: their next run then goes without the credential.",
  });
}
