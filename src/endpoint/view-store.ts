import { and, desc, eq, gt, inArray, isNull, notInArray, or, type SQL, sql } from "drizzle-orm";
import { lostEventKind } from "../container/container.ts";
import { parseContainerState } from "../container/state.ts";
import type { Queries } from "../db/database.ts";
import { containerEvents, containers, endedContainerStates, workers, workspaces } from "../db/schema.ts";
import { deploymentDemands, deployments, endpoints } from "../db/schema-endpoint.ts";
import type { Demand, Deployment, DeploymentState, EndpointSpec } from "./endpoint.ts";
import type { ContainerView, DeploymentView, EndpointView } from "./view.ts";

/** A gateway renews what it has to do more often; what is older is of one that is gone. */
export const demandLifeMs = 10_000;
/** How far back ends count; longer than the longest pause after them. */
const endsWithin = "15 minutes";

/** Which endpoints: a condition on their rows. */
export type Which = SQL | undefined;

const living = notInArray(containers.state, endedContainerStates);
const hasLiving = sql`exists (select 1 from ${containers} where ${containers.deploymentId} = ${deployments.id} and ${living})`;

export const withId = (ids: readonly string[]): Which => inArray(endpoints.id, [...ids]);

/** Those about which something may have to be decided with time alone. */
export const attended: Which = sql`(${endpoints.deletingAt} is not null or exists (
  select 1 from ${deployments} where ${deployments.endpointId} = ${endpoints.id} and (
    ${deployments.state} in ('starting', 'draining')
    or (${deployments.state} = 'active' and (${deployments.spec}->>'containersMin')::int > 0)
    or exists (select 1 from ${deploymentDemands} where ${deploymentDemands.deploymentId} = ${deployments.id})
    or ${hasLiving})))`;

/** Endpoints by name, each with its deployments, their containers and what there is to do. Of no workspace, all. */
export async function readViews(db: Queries, which: Which): Promise<EndpointView[]> {
  // One after another where there is one connection, but none waits for the answer to the one before.
  const [rows, found, demands] = await Promise.all([
    deploymentsOf(db, which),
    containersOf(db, which),
    demandsOf(db, which),
  ]);
  const readAt = Date.now();
  const views = new Map<string, EndpointView & { readonly deployments: DeploymentView[] }>();
  for (const { endpoint, workspaceName, deployment, now } of rows) {
    const view = views.get(endpoint.id) ?? {
      id: endpoint.id,
      workspaceId: endpoint.workspaceId,
      workspaceName,
      name: endpoint.name,
      activeDeploymentId: endpoint.activeDeploymentId ?? undefined,
      deletingAt: endpoint.deletingAt ?? undefined,
      createdAt: endpoint.createdAt,
      updatedAt: endpoint.updatedAt,
      deployments: [],
      clockAheadMs: Number(now) - readAt,
    };
    views.set(endpoint.id, view);
    if (deployment === null) continue;
    const its = found.filter(({ deploymentId }) => deploymentId === deployment.id);
    view.deployments.push({
      ...toDeployment(deployment),
      imageId: deployment.imageId,
      lastUsedAt: deployment.lastUsedAt,
      living: its.filter(({ state }) => !endedContainerStates.includes(state)),
      ended: its.filter(({ state }) => endedContainerStates.includes(state)),
      demand: demands.get(deployment.id) ?? { queued: 0, inFlight: 0 },
    });
  }
  return [...views.values()];
}

export function toDeployment(row: typeof deployments.$inferSelect): Deployment {
  return {
    id: row.id,
    endpointId: row.endpointId,
    workspaceId: row.workspaceId,
    version: row.version,
    state: row.state as DeploymentState,
    spec: row.spec as EndpointSpec,
    reason: row.reason ?? undefined,
    createdAt: row.createdAt,
  };
}

/** Those that have containers or may get some, and the latest. */
function ofInterest(): SQL | undefined {
  return or(
    inArray(deployments.state, ["starting", "active", "draining"]),
    sql`${deployments.version} = (select max(d.version) from deployments d where d.endpoint_id = ${deployments.endpointId})`,
    hasLiving,
  );
}

function deploymentsOf(db: Queries, which: Which) {
  return db
    .select({
      endpoint: endpoints,
      workspaceName: workspaces.name,
      deployment: deployments,
      now: sql<string>`(extract(epoch from clock_timestamp()) * 1000)::text`,
    })
    .from(endpoints)
    .innerJoin(workspaces, eq(workspaces.id, endpoints.workspaceId))
    .leftJoin(deployments, and(eq(deployments.endpointId, endpoints.id), ofInterest()))
    .where(which)
    .orderBy(endpoints.name, desc(deployments.version));
}

/** Ids of all deployments of endpoints. */
function idsOf(db: Queries, which: Which) {
  return db
    .select({ id: deployments.id })
    .from(deployments)
    .innerJoin(endpoints, eq(endpoints.id, deployments.endpointId))
    .where(which);
}

async function containersOf(db: Queries, which: Which): Promise<ContainerView[]> {
  const recent = and(
    isNull(containers.drainingAt),
    gt(containers.updatedAt, sql`now() - ${endsWithin}::interval`),
  );
  const rows = await db
    .select({
      id: containers.id,
      deploymentId: containers.deploymentId,
      state: containers.state,
      createdAt: containers.createdAt,
      updatedAt: containers.updatedAt,
      readyAt: containers.readyAt,
      finishedAt: containers.finishedAt,
      drainingAt: containers.drainingAt,
      exitCode: containers.exitCode,
      signal: containers.signal,
      oomKilled: containers.oomKilled,
      reason: containers.reason,
      lost: sql<boolean>`exists (select 1 from ${containerEvents} where ${containerEvents.containerId} = ${containers.id} and ${containerEvents.kind} = ${lostEventKind})`,
      worker: { id: workers.id, address: workers.address, bootNonce: workers.bootNonce },
    })
    .from(containers)
    .leftJoin(workers, and(eq(workers.id, containers.workerId), eq(workers.state, "ready")))
    .where(and(inArray(containers.deploymentId, idsOf(db, which)), or(living, recent)))
    .orderBy(desc(containers.createdAt), containers.id);
  return rows.map(({ deploymentId, state, worker, ...row }) => ({
    ...row,
    deploymentId: deploymentId ?? "",
    state: parseContainerState(state),
    readyAt: row.readyAt ?? undefined,
    finishedAt: row.finishedAt ?? undefined,
    drainingAt: row.drainingAt ?? undefined,
    exitCode: row.exitCode ?? undefined,
    signal: row.signal ?? undefined,
    reason: row.reason ?? undefined,
    worker: worker ?? undefined,
  }));
}

async function demandsOf(db: Queries, which: Which): Promise<Map<string, Demand>> {
  const rows = await db
    .select({
      id: deploymentDemands.deploymentId,
      queued: sql<number>`sum(${deploymentDemands.queued})::int`,
      inFlight: sql<number>`sum(${deploymentDemands.inFlight})::int`,
    })
    .from(deploymentDemands)
    .where(
      and(
        inArray(deploymentDemands.deploymentId, idsOf(db, which)),
        gt(deploymentDemands.seenAt, sql`now() - ${demandLifeMs} * interval '1 millisecond'`),
      ),
    )
    .groupBy(deploymentDemands.deploymentId);
  return new Map(rows.map(({ id, queued, inFlight }) => [id, { queued, inFlight }]));
}
