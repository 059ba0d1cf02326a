import { asc, eq, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { endedContainerStates, workspaces } from "../db/schema.ts";
import { SecretError } from "./error.ts";

export interface Workspace {
  readonly id: string;
  readonly name: string;
  readonly createdAt: Date;
}

/** A workspace and how much is in it. */
export interface WorkspaceSummary extends Workspace {
  readonly secrets: number;
  readonly images: number;
  /** Those that have not ended. */
  readonly containers: number;
  /** Those that work. */
  readonly tokens: number;
}

/** One workspace or, without an id, all, by name. */
export async function summarize(database: Database, workspaceId?: string): Promise<WorkspaceSummary[]> {
  return await database.query((db) => summariesIn(db, workspaceId));
}

export async function summariesIn(db: Queries, workspaceId?: string): Promise<WorkspaceSummary[]> {
  const ended = sql.join(
    endedContainerStates.map((state) => sql`${state}`),
    sql`, `,
  );
  const count = (what: ReturnType<typeof sql>) => sql<number>`(select count(*)::int from ${what})`;
  return await db
    .select({
      id: workspaces.id,
      name: workspaces.name,
      createdAt: workspaces.createdAt,
      secrets: count(sql`secrets where secrets.workspace_id = workspaces.id`),
      images: count(sql`images where images.workspace_id = workspaces.id`),
      containers: count(
        sql`containers where containers.workspace_id = workspaces.id and containers.state not in (${ended})`,
      ),
      tokens: count(
        sql`tokens where tokens.workspace_id = workspaces.id and tokens.revoked_at is null
          and (tokens.expires_at is null or tokens.expires_at > now())`,
      ),
    })
    .from(workspaces)
    .where(workspaceId === undefined ? undefined : eq(workspaces.id, workspaceId))
    .orderBy(asc(workspaces.name));
}

export function unknownWorkspace(name: string): SecretError {
  return new SecretError("not_found", `no workspace ${name}`, { next: "See `oci-node workspace ls`." });
}
