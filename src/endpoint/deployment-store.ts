import { eq, sql } from "drizzle-orm";
import { drainIn } from "../container/draining-store.ts";
import type { ContainerStore } from "../container/store.ts";
import type { Database, Queries } from "../db/database.ts";
import { deployments, endpoints } from "../db/schema-endpoint.ts";
import { type DemandOf, writeDemands } from "./demand-store.ts";
import type { DeploymentState } from "./endpoint.ts";
import { type Action, type PlanInput, planOf } from "./plan.ts";
import { containerOf } from "./spec.ts";
import { tellChanged } from "./store.ts";
import { endOf } from "./trouble.ts";
import type { EndpointView } from "./view.ts";
import { readViews, withId } from "./view-store.ts";

export interface Change extends Pick<PlanInput, "peakOf" | "limits"> {
  /** What this gateway has to do by now for deployments of the endpoint: written before it is looked what that needs. */
  readonly demands?: { readonly gatewayId: string; readonly of: readonly DemandOf[] } | undefined;
  /** What containers last said, by id. A deployment does not fail by one of which that was not asked. */
  readonly lastWords?: ReadonlyMap<string, string> | undefined;
}

/** Does about an endpoint what is to be done. */
export class DeploymentStore {
  readonly #database: Database;
  readonly #containers: Pick<ContainerStore, "createIn">;

  constructor(database: Database, containers: Pick<ContainerStore, "createIn">) {
    this.#database = database;
    this.#containers = containers;
  }

  /**
   * Looks at an endpoint with its row locked and does what is to be done: of several gateways that do so at once, one does
   * it, and the others find it done. Returns what was done.
   */
  async decide(endpointId: string, change: Change): Promise<readonly Action[]> {
    return await this.#database.transaction(async (tx) => {
      const lock = tx
        .select({ id: endpoints.id })
        .from(endpoints)
        .where(eq(endpoints.id, endpointId))
        .for("no key update");
      const { gatewayId = "", of = [] } = change.demands ?? {};
      // In this order on the transaction's connection, but none waits for the answer to the one before: what is read is read
      // under the lock.
      const [, , [view]] = await Promise.all([
        lock,
        writeDemands(tx, gatewayId, of),
        readViews(tx, withId([endpointId])),
      ]);
      if (view === undefined) return [];
      const now = new Date(Date.now() + view.clockAheadMs);
      const { peakOf, limits, lastWords } = change;
      const actions = planOf(view, { now, peakOf, limits }).filter(
        (action) => action.kind !== "fail" || lastWords?.has(action.container.id) === true,
      );
      for (const action of actions) await this.#do(tx, view, action, lastWords);
      if (actions.length > 0) await tellChanged(tx, endpointId);
      return actions;
    });
  }

  async #do(tx: Queries, view: EndpointView, action: Action, lastWords: Change["lastWords"]): Promise<void> {
    switch (action.kind) {
      case "create":
        await Promise.all(
          Array.from({ length: action.count }, () =>
            this.#containers.createIn(tx, containerOf(action.deployment.spec, action.deployment)),
          ),
        );
        return;
      case "drain":
        return await drainIn(
          tx,
          action.containers.map(({ id }) => id),
          whyDrained(view),
        );
      case "activate":
        return await activate(tx, view, action.deployment.id);
      case "fail": {
        const { deployment, container } = action;
        const words = lastWords?.get(container.id);
        const reason = words ? `${endOf(container)}\n${words}` : endOf(container);
        return await setState(tx, deployment.id, "failed", { reason });
      }
      case "retire":
        return await setState(tx, action.deployment.id, "retired");
      case "forget":
        await tx.delete(endpoints).where(eq(endpoints.id, view.id));
        return;
    }
  }
}

async function activate(tx: Queries, view: EndpointView, deploymentId: string): Promise<void> {
  const before = view.deployments.filter(({ id, state }) => state === "active" && id !== deploymentId);
  for (const { id, living } of before) {
    await setState(tx, id, "draining");
    await drainIn(
      tx,
      living.map((container) => container.id),
      "a later version takes the requests",
    );
  }
  await setState(tx, deploymentId, "active", { lastUsedAt: sql`now()` });
  await tx
    .update(endpoints)
    .set({ activeDeploymentId: deploymentId, updatedAt: sql`now()` })
    .where(eq(endpoints.id, view.id));
}

async function setState(
  tx: Queries,
  id: string,
  state: DeploymentState,
  also: { readonly reason?: string; readonly lastUsedAt?: ReturnType<typeof sql> } = {},
): Promise<void> {
  const reason = also.reason?.replaceAll("\0", "�");
  await tx
    .update(deployments)
    .set({ ...also, ...(reason === undefined ? {} : { reason }), state, updatedAt: sql`now()` })
    .where(eq(deployments.id, id));
}

function whyDrained({ deletingAt }: EndpointView): string {
  return deletingAt === undefined ? "no requests need it" : "its endpoint is being removed";
}
