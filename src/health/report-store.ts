import { and, asc, eq, sql } from "drizzle-orm";
import type { Database } from "../db/database.ts";
import { endedContainerStates, secrets } from "../db/schema.ts";
import { secretHealth } from "../db/schema-health.ts";
import { opaqueType } from "../secret/opaque.ts";
import { opaqueUsers } from "../secret/opaque-users-store.ts";
import type { SecretHealth } from "./health.ts";
import { toHealth } from "./health-row-store.ts";

const givenShownMax = 1000;

/** What is known of a secret beside its value: how it fares, and what depends on it. */
export interface SecretReport {
  readonly secretId: string;
  /** `opaque`: no registry's; nobody checks it. */
  readonly type: string;
  readonly name: string;
  readonly registry: string;
  readonly version: number;
  /** Where its owner wants it checked, and when he says that it ends. */
  readonly repository: string | undefined;
  readonly declaredExpiry: Date | undefined;
  /** `undefined`: nobody has looked at it yet. */
  readonly health: SecretHealth | undefined;
  /** Images that use it, by id. */
  readonly imageIds: readonly string[];
  /** Their containers that have not ended. */
  readonly containerIds: readonly string[];
}

/** Reports on all secrets of a workspace at once, however many there are. */
export class ReportStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** By name. @param name one secret alone; none is there: an empty list */
  async reports(workspaceId: string, name?: string): Promise<SecretReport[]> {
    const one = name === undefined ? undefined : eq(secrets.name, name);
    const [rows, users] = await Promise.all([
      this.#database.query((db) =>
        db
          .select({ secret: secrets, health: secretHealth })
          .from(secrets)
          .leftJoin(secretHealth, eq(secretHealth.secretId, secrets.id))
          .where(and(eq(secrets.workspaceId, workspaceId), one))
          .orderBy(asc(secrets.name)),
      ),
      this.#users(workspaceId, name),
    ]);
    const given = await this.#given(workspaceId, rows);
    return rows.map(({ secret, health }) => ({
      secretId: secret.id,
      name: secret.name,
      registry: secret.registry,
      type: secret.credentialType,
      version: secret.currentVersion,
      repository: secret.repository ?? undefined,
      declaredExpiry: secret.declaredExpiry ?? undefined,
      // Of an older version it says nothing of this one.
      health: health?.version === secret.currentVersion ? toHealth(health, secret) : undefined,
      imageIds: users.get(secret.id)?.images ?? [],
      containerIds: given.get(secret.id) ?? users.get(secret.id)?.containers ?? [],
    }));
  }

  /** Containers of a value for containers, where it alone is asked about: of many nobody wants to see them. */
  async #given(
    workspaceId: string,
    rows: readonly { readonly secret: typeof secrets.$inferSelect }[],
  ): Promise<ReadonlyMap<string, readonly string[]>> {
    const [only, other] = rows;
    if (only?.secret.credentialType !== opaqueType || other !== undefined) return new Map();
    const { id, name } = only.secret;
    const { containerIds } = await this.#database.query((db) =>
      opaqueUsers(db, workspaceId, name, givenShownMax),
    );
    return new Map([[id, containerIds]]);
  }

  /** An image uses the secret with which it was built; when that is gone, the one that has its name now. */
  async #users(workspaceId: string, name: string | undefined) {
    const one = name === undefined ? sql`` : sql`and coalesce(own.name, heir.name) = ${name}`;
    const ended = sql.join(
      endedContainerStates.map((state) => sql`${state}`),
      sql`, `,
    );
    const rows = await this.#database.query((db) =>
      db.execute<{ secret_id: string; images: string[]; containers: string[] }>(sql`
        select coalesce(own.id, heir.id) as secret_id,
          array_agg(distinct i.id order by i.id) as images,
          coalesce(array_agg(distinct c.id order by c.id) filter (where c.id is not null), '{}') as containers
        from images i
        left join secrets own on own.workspace_id = i.workspace_id and own.id::text = i.credential_secret_id
        left join secrets heir
          on own.id is null and heir.workspace_id = i.workspace_id and heir.name = i.credential_secret_name
        left join containers c
          on c.workspace_id = i.workspace_id and c.image_id = i.id and c.state not in (${ended})
        where i.workspace_id = ${workspaceId} and coalesce(own.id, heir.id) is not null ${one}
        group by 1`),
    );
    return new Map(rows.map(({ secret_id: id, images, containers }) => [id, { images, containers }]));
  }
}
