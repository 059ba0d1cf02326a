import { and, asc, eq, inArray, notInArray, sql } from "drizzle-orm";
import type { Queries } from "../db/database.ts";
import { containers, endedContainerStates } from "../db/schema.ts";
import { deployments, endpoints } from "../db/schema-endpoint.ts";

/** Deployments that may start a container once more. */
const usingStates = ["starting", "active", "draining"];

/** Who is given a value for containers: those that have not ended, and endpoints whose containers come and go. */
export interface OpaqueUsers {
  readonly containerIds: readonly string[];
  readonly endpointNames: readonly string[];
}

/** The users of a secret by its name, some of them where there are very many. */
export async function opaqueUsers(
  db: Queries,
  workspaceId: string,
  name: string,
  limit: number,
): Promise<OpaqueUsers> {
  const given = JSON.stringify({ options: { secrets: [{ secretName: name }] } });
  const living = await db
    .select({ id: containers.id })
    .from(containers)
    .where(
      and(
        eq(containers.workspaceId, workspaceId),
        notInArray(containers.state, endedContainerStates),
        sql`${containers.spec} @> ${given}::jsonb`,
      ),
    )
    .orderBy(asc(containers.id))
    .limit(limit);
  const deployed = await db
    .selectDistinct({ name: endpoints.name })
    .from(deployments)
    .innerJoin(endpoints, eq(endpoints.id, deployments.endpointId))
    .where(
      and(
        eq(deployments.workspaceId, workspaceId),
        inArray(deployments.state, usingStates),
        sql`${deployments.spec} @> ${given}::jsonb`,
      ),
    )
    .orderBy(asc(endpoints.name))
    .limit(limit);
  return { containerIds: living.map(({ id }) => id), endpointNames: deployed.map(({ name }) => name) };
}
