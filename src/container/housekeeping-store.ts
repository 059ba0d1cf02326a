import { and, asc, desc, eq, gt, gte, inArray, notInArray, sql } from "drizzle-orm";
import { type Database, notify } from "../db/database.ts";
import { containerEvents, containers, endedContainerStates } from "../db/schema.ts";
import type { ContainerEvent } from "./container.ts";
import { ContainerError } from "./error.ts";
import { toContainerEvent } from "./row-store.ts";
import { isEnded, parseContainerState } from "./state.ts";
import { lockContainer } from "./transition-store.ts";

/** An event with what its container is called. */
export interface NamedEvent extends ContainerEvent {
  readonly containerName: string | undefined;
}

/** Which events of a workspace. */
export interface EventFilter {
  readonly workspaceId: string;
  /** Absent: those of all its containers. */
  readonly containerId?: string | undefined;
  readonly since?: Date | undefined;
}

/** A container whose row is gone, and the worker that may have its output. */
export interface RemovedContainer {
  readonly id: string;
  readonly workerId: string | undefined;
}

/** What is looked back at, and cleared away. */
export class HousekeepingStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Removes an ended container with its events. Throws ContainerError `not_found`, or `still_running` while it lives. */
  async remove(id: string): Promise<RemovedContainer> {
    return this.#database.transaction(async (tx) => {
      const row = await lockContainer(tx, id);
      if (!isEnded(parseContainerState(row.state))) {
        throw new ContainerError("still_running", `container ${id} is ${row.state}`, {
          next: `Stop it first, with \`oci-node stop ${id}\`, or let \`rm --force\` end it.`,
        });
      }
      await tx.delete(containers).where(eq(containers.id, id));
      await notify(tx, "container_changed", `${row.workspaceId} ${id}`);
      return { id, workerId: row.workerId ?? undefined };
    });
  }

  /** Removes the ended containers of a deployment but for the last `keep` of them: what scaling leaves behind is without end. */
  async forgetEnded(deploymentId: string, keep: number): Promise<RemovedContainer[]> {
    const ended = and(
      eq(containers.deploymentId, deploymentId),
      inArray(containers.state, endedContainerStates),
    );
    return this.#database.query(async (db) => {
      const kept = db
        .select({ id: containers.id })
        .from(containers)
        .where(ended)
        .orderBy(desc(containers.finishedAt), desc(containers.id))
        .limit(keep);
      const gone = await db
        .delete(containers)
        .where(and(ended, notInArray(containers.id, kept)))
        .returning({ id: containers.id, workerId: containers.workerId });
      return gone.map(({ id, workerId }) => ({ id, workerId: workerId ?? undefined }));
    });
  }

  /** Those of some containers of whom nothing is known any more: their output is nobody's. */
  async unknown(ids: readonly string[]): Promise<string[]> {
    if (ids.length === 0) return [];
    const rows = await this.#database.query((db) =>
      db
        .select({ id: containers.id })
        .from(containers)
        .where(inArray(containers.id, [...ids])),
    );
    const known = new Set(rows.map(({ id }) => id));
    return ids.filter((id) => !known.has(id));
  }

  /** Events in order, after that one; of containers that are still known. */
  async events(
    { workspaceId, containerId, since }: EventFilter,
    afterId: number,
    limit: number,
  ): Promise<NamedEvent[]> {
    const rows = await this.#database.query((db) =>
      db
        .select({ event: containerEvents, containerName: containers.name })
        .from(containers)
        .innerJoin(containerEvents, eq(containerEvents.containerId, containers.id))
        .where(
          and(
            eq(containers.workspaceId, workspaceId),
            containerId === undefined ? undefined : eq(containers.id, containerId),
            since === undefined ? undefined : gte(containerEvents.at, since),
            gt(containerEvents.id, afterId),
          ),
        )
        .orderBy(asc(containerEvents.id))
        .limit(limit),
    );
    return rows.map(({ event, containerName }) => ({
      ...toContainerEvent(event),
      containerName: containerName ?? undefined,
    }));
  }

  /** The containers that changed in the last milliseconds. */
  async changed({ workspaceId, containerId }: EventFilter, withinMs: number): Promise<string[]> {
    const rows = await this.#database.query((db) =>
      db
        .select({ id: containers.id })
        .from(containers)
        .where(
          and(
            eq(containers.workspaceId, workspaceId),
            containerId === undefined ? undefined : eq(containers.id, containerId),
            gte(containers.updatedAt, sql`now() - ${withinMs} * interval '1 millisecond'`),
          ),
        ),
    );
    return rows.map(({ id }) => id);
  }
}
