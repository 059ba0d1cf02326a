import { and, eq, inArray, isNull, sql } from "drizzle-orm";
import { drainIn } from "../container/draining-store.ts";
import type { ContainerStore } from "../container/store.ts";
import { type Database, notify, type Queries, type Subscription } from "../db/database.ts";
import { containers, endedContainerStates, workspaces } from "../db/schema.ts";
import { codeArchives, deployments, endpoints } from "../db/schema-endpoint.ts";
import {
  type Deployment,
  type EndpointSpec,
  newDeploymentId,
  newEndpointId,
  type RouteOf,
} from "./endpoint.ts";
import { EndpointError } from "./error.ts";
import { containerOf, sameSpec } from "./spec.ts";
import type { EndpointView } from "./view.ts";
import { attended, readViews, toDeployment, withId } from "./view-store.ts";

export interface Deployed {
  readonly endpointId: string;
  /** The one that was made, or the one that is equal. */
  readonly deployment: Deployment;
  readonly made: boolean;
}

export interface WantedDeployment {
  readonly workspaceId: string;
  readonly name: string;
  readonly spec: EndpointSpec;
  /** Also where the specification is equal. */
  readonly force: boolean;
}

/** The rows of endpoints and of what is deployed to them. Every write tells all gateways once it is committed. */
export class EndpointStore {
  readonly #database: Database;
  readonly #containers: Pick<ContainerStore, "createIn">;

  constructor(database: Database, containers: Pick<ContainerStore, "createIn">) {
    this.#database = database;
    this.#containers = containers;
  }

  /**
   * Makes the endpoint if there is none, and a deployment of it, whose first container is queued with it; none where the one
   * that is active, or on its way to be, is equal. One that has not come up yet is given up for it.
   *
   * @throws EndpointError `conflict` while the endpoint is being removed, `code_missing`; ContainerError `image_not_found`,
   *   `image_not_ready`
   */
  async deploy(wanted: WantedDeployment): Promise<Deployed> {
    return await this.#database.transaction(async (tx) => {
      const endpoint = await ownRow(tx, wanted);
      const rows = await tx
        .select()
        .from(deployments)
        .where(
          and(eq(deployments.endpointId, endpoint.id), inArray(deployments.state, ["starting", "active"])),
        );
      const starting = rows.filter(({ state }) => state === "starting").map(toDeployment);
      const active = rows.filter(({ state }) => state === "active").map(toDeployment);
      const [current] = starting.length > 0 ? starting : active;
      if (current !== undefined && !wanted.force && sameSpec(current.spec, wanted.spec))
        return { endpointId: endpoint.id, deployment: current, made: false };
      await keepCode(tx, wanted);
      const version = await nextVersion(tx, endpoint.id);
      await giveUp(tx, starting, version);
      const deployment = await insertDeployment(tx, endpoint.id, version, wanted);
      await this.#containers.createIn(tx, containerOf(wanted.spec, deployment));
      await tellChanged(tx, endpoint.id);
      return { endpointId: endpoint.id, deployment, made: true };
    });
  }

  /** Endpoints by id with all about them, by name; those that there are not are left out. */
  async views(ids: readonly string[]): Promise<EndpointView[]> {
    if (ids.length === 0) return [];
    return await this.#database.query((db) => readViews(db, withId(ids)));
  }

  async viewsOf(workspaceId: string): Promise<EndpointView[]> {
    return await this.#database.query((db) => readViews(db, eq(endpoints.workspaceId, workspaceId)));
  }

  /** Those about which something may have to be decided with time alone. */
  async attended(): Promise<EndpointView[]> {
    return await this.#database.query((db) => readViews(db, attended));
  }

  async find(name: string, of: RouteOf): Promise<string | undefined> {
    const whose =
      "workspaceId" in of ? eq(endpoints.workspaceId, of.workspaceId) : eq(workspaces.name, of.workspaceName);
    const [row] = await this.#database.query((db) =>
      db
        .select({ id: endpoints.id })
        .from(endpoints)
        .innerJoin(workspaces, eq(workspaces.id, endpoints.workspaceId))
        .where(and(eq(endpoints.name, name), whose)),
    );
    return row?.id;
  }

  /** Which endpoint a deployment is of. */
  async endpointOf(deploymentId: string): Promise<string | undefined> {
    const [row] = await this.#database.query((db) =>
      db.select({ id: deployments.endpointId }).from(deployments).where(eq(deployments.id, deploymentId)),
    );
    return row?.id;
  }

  /** From now on it takes no requests and gets no containers. Undefined: there is none; repeating it changes nothing. */
  async delete(workspaceId: string, name: string): Promise<string | undefined> {
    const [id] = await this.#delete(and(eq(endpoints.workspaceId, workspaceId), eq(endpoints.name, name)));
    return id;
  }

  /** As {@link delete}, of a whole workspace. */
  async deleteAll(workspaceId: string): Promise<void> {
    await this.#delete(eq(endpoints.workspaceId, workspaceId));
  }

  async #delete(which: ReturnType<typeof and>): Promise<string[]> {
    return await this.#database.transaction(async (tx) => {
      const rows = await tx
        .update(endpoints)
        .set({ deletingAt: sql`coalesce(${endpoints.deletingAt}, now())`, updatedAt: sql`now()` })
        .where(which)
        .returning({ id: endpoints.id });
      for (const { id } of rows) await tellChanged(tx, id);
      return rows.map(({ id }) => id);
    });
  }

  /** Calls back with the id of each endpoint that changes; `onGap` at first and whenever any may have. */
  async subscribe(onChange: (id: string) => void, onGap: () => void): Promise<Subscription> {
    return await this.#database.listen(
      "endpoint_changed",
      (payload) => (payload === "" ? onGap() : onChange(payload)),
      onGap,
    );
  }
}

export function unknownEndpoint(name: string): EndpointError {
  return new EndpointError("not_found", `the workspace has no endpoint ${name}`, {
    next: "List them with `oci-node endpoint ls`.",
  });
}

export async function tellChanged(tx: Queries, endpointId: string): Promise<void> {
  await notify(tx, "endpoint_changed", endpointId);
}

/** The endpoint's row, locked: all that is decided about an endpoint is decided one after another. */
async function ownRow(
  tx: Queries,
  { workspaceId, name }: WantedDeployment,
): Promise<{ readonly id: string }> {
  await tx.insert(endpoints).values({ id: newEndpointId(), workspaceId, name }).onConflictDoNothing();
  const [row] = await tx
    .update(endpoints)
    .set({ updatedAt: sql`now()` })
    .where(
      and(eq(endpoints.workspaceId, workspaceId), eq(endpoints.name, name), isNull(endpoints.deletingAt)),
    )
    .returning({ id: endpoints.id });
  if (row !== undefined) return row;
  throw new EndpointError("conflict", `endpoint ${name} is being removed: its last requests go on`, {
    next: "Deploy again when it is gone: `oci-node endpoint ls`.",
  });
}

/** The archive stays while this transaction lasts, and after it as a deployment names it. */
async function keepCode(tx: Queries, { workspaceId, spec }: WantedDeployment): Promise<void> {
  if (spec.handler === undefined) return;
  const [found] = await tx
    .update(codeArchives)
    .set({ usedAt: sql`now()` })
    .where(and(eq(codeArchives.workspaceId, workspaceId), eq(codeArchives.sha256, spec.handler.codeSha256)))
    .returning({ sha256: codeArchives.sha256 });
  if (found !== undefined) return;
  throw new EndpointError("code_missing", `the workspace has no code ${spec.handler.codeSha256}`, {
    next: "Upload it first: `oci-node-py deploy` does, and UploadCode.",
  });
}

async function nextVersion(tx: Queries, endpointId: string): Promise<number> {
  const [row] = await tx
    .select({ version: sql<number>`coalesce(max(${deployments.version}), 0) + 1` })
    .from(deployments)
    .where(eq(deployments.endpointId, endpointId));
  return row?.version ?? 1;
}

async function giveUp(tx: Queries, starting: readonly Deployment[], version: number): Promise<void> {
  if (starting.length === 0) return;
  const ids = starting.map(({ id }) => id);
  const reason = `version ${version} was deployed before it came up`;
  await tx
    .update(deployments)
    .set({ state: "retired", reason, updatedAt: sql`now()` })
    .where(inArray(deployments.id, ids));
  const living = await tx
    .select({ id: containers.id })
    .from(containers)
    .where(
      and(inArray(containers.deploymentId, ids), sql`${containers.state} not in ${endedContainerStates}`),
    );
  await drainIn(
    tx,
    living.map(({ id }) => id),
    reason,
  );
}

async function insertDeployment(
  tx: Queries,
  endpointId: string,
  version: number,
  { workspaceId, spec }: WantedDeployment,
): Promise<Deployment> {
  const [row] = await tx
    .insert(deployments)
    .values({
      id: newDeploymentId(),
      endpointId,
      workspaceId,
      version,
      state: "starting",
      imageId: spec.imageId,
      reference: spec.reference,
      spec,
      public: spec.public,
    })
    .returning();
  if (row === undefined) throw new EndpointError("conflict", "the deployment was not made");
  return toDeployment(row);
}
