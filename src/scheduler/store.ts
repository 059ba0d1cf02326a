import { and, asc, desc, eq, inArray, isNull, lt, or, sql } from "drizzle-orm";
import { revokedError } from "../cluster/error.ts";
import { volumeNames } from "../container/check-options.ts";
import type { Container } from "../container/container.ts";
import { ContainerError } from "../container/error.ts";
import { type ContainerRow, toContainer } from "../container/row-store.ts";
import { placedStates } from "../container/state.ts";
import { type Transitioned, transitionIn } from "../container/transition-store.ts";
import { bindVolumesIn, volumeWorkersIn } from "../container/volume-store.ts";
import { type Database, notify, type Queries, type Subscription } from "../db/database.ts";
import { containers, workers } from "../db/schema.ts";
import { workerIdentities } from "../db/schema-cluster.ts";
import { SchedulerError } from "./error.ts";
import { withoutIdentity } from "./former-worker-store.ts";
import type { NewWorker, Worker, WorkerState } from "./worker.ts";

export type { Subscription } from "../db/database.ts";

const ago = (ms: number) => sql`now() - ${ms} * interval '1 millisecond'`;
const ahead = (ms: number) => sql`now() + ${ms} * interval '1 millisecond'`;

/** The queue of containers and the workers, for any number of schedulers at once. All times are the database's. */
export class SchedulerStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Claims up to `limit` pending containers for `leaseMs`: the oldest of each workspace, then the second of each, and so on, so
   * that who has many that wait is in nobody else's way. Nobody else gets them until then; a
   * scheduler that dies holds nothing for longer. They stay `pending`.
   */
  async claimPending(limit: number, schedulerId: string, leaseMs: number): Promise<Container[]> {
    return this.#claim("pending", limit, schedulerId, leaseMs);
  }

  /** As {@link claimPending} for containers that were given to a worker by a scheduler that did not finish in time. */
  async claimUnconfirmed(limit: number, schedulerId: string, leaseMs: number): Promise<Container[]> {
    return this.#claim("scheduled", limit, schedulerId, leaseMs);
  }

  async #claim(state: string, limit: number, schedulerId: string, leaseMs: number): Promise<Container[]> {
    const free =
      state === "pending"
        ? or(isNull(containers.leaseUntil), lt(containers.leaseUntil, sql`now()`))
        : lt(containers.leaseUntil, sql`now()`);
    return this.#database.transaction(async (tx) => {
      const turns = tx
        .select({
          id: containers.id,
          turn: sql<number>`row_number() over (partition by ${containers.workspaceId} order by ${containers.createdAt}, ${containers.id})`.as(
            "turn",
          ),
        })
        .from(containers)
        .where(and(eq(containers.state, state), free))
        .as("turns");
      const queue = await tx
        .select({ id: containers.id })
        .from(containers)
        .innerJoin(turns, eq(turns.id, containers.id))
        // Once more: of what another has claimed since, the row tells.
        .where(and(eq(containers.state, state), free))
        .orderBy(asc(turns.turn), asc(containers.createdAt), asc(containers.id))
        .limit(limit)
        .for("update", { of: containers, skipLocked: true });
      if (queue.length === 0) return [];
      const ids = queue.map((row) => row.id);
      const rows = await tx
        .update(containers)
        .set({ claimedBy: schedulerId, leaseUntil: ahead(leaseMs) })
        .where(inArray(containers.id, ids))
        .returning();
      return rows.map(toContainer).sort((a, b) => ids.indexOf(a.id) - ids.indexOf(b.id));
    });
  }

  /** Gives a claimed container back to the queue, not to be claimed before `retryInMs`. Not the claimant's: nothing. */
  async releaseClaim(id: string, schedulerId: string, retryInMs: number): Promise<void> {
    await this.#database.query((db) =>
      db
        .update(containers)
        .set({ claimedBy: null, leaseUntil: ahead(retryInMs) })
        .where(
          and(eq(containers.id, id), eq(containers.state, "pending"), eq(containers.claimedBy, schedulerId)),
        ),
    );
  }

  /**
   * Gives a pending container to a worker (`scheduled`) if, with the worker's row locked, it is ready and has room:
   * two schedulers together never give a worker more than it has. Its volumes that are nobody's yet become the worker's.
   * undefined: no room there (any more), another scheduler has placed it, it was stopped meanwhile, or a volume is another
   * worker's by now.
   */
  async place(container: Container, workerId: string, leaseMs: number): Promise<Transitioned | undefined> {
    const placing = this.#database.transaction(async (tx) => {
      const [row] = await tx.select().from(workers).where(eq(workers.id, workerId)).for("update");
      if (row === undefined || row.state !== "ready") return undefined;
      const taken = await placedOn(tx, workerId);
      if (taken.cpuMillis + container.cpuMillis > row.cpuMillis) return undefined;
      if (taken.memoryBytes + container.memoryBytes > row.memoryBytes) return undefined;
      const names = volumeNames(container.options);
      if (!(await bindVolumesIn(tx, container.workspaceId, names, workerId))) return undefined;
      const expected = { from: ["pending"], attempt: container.attempt } as const;
      const placed = await transitionIn(tx, container.id, expected, "scheduled", { workerId, leaseMs });
      // Placed by another scheduler meanwhile, which also hands it over.
      return placed.changed ? placed : undefined;
    });
    return await placing.catch((error: unknown) => {
      if (error instanceof ContainerError) return undefined;
      throw error;
    });
  }

  /** Which worker has each of some volumes of a workspace, in the order of their names; those of nobody are missing. */
  async volumeWorkers(workspaceId: string, names: readonly string[]): Promise<Map<string, string>> {
    return this.#database.query((db) => volumeWorkersIn(db, workspaceId, names));
  }

  /** Calls back when something was queued, and at first and after a broken connection, when something may have been. */
  async subscribePending(onPending: () => void): Promise<Subscription> {
    return this.#database.listen("container_pending", onPending, onPending);
  }

  /** A worker joins, or joins again with a new boot key. Throws ClusterError `revoked`. */
  async register(worker: NewWorker): Promise<void> {
    const { id, ...facts } = worker;
    const state: WorkerState = "ready";
    const now = { state, lastHeartbeatAt: sql`now()`, cpuMillisUsed: 0, memoryBytesUsed: 0 };
    await this.#database.transaction(async (tx) => {
      // Held, so that a revocation comes before this or after it.
      const [identity] = await tx
        .select({ revokedAt: workerIdentities.revokedAt })
        .from(workerIdentities)
        .where(eq(workerIdentities.workerId, id))
        .for("share");
      if (identity?.revokedAt != null) throw revokedError(id, worker.name);
      await tx
        .insert(workers)
        .values({ id, ...facts, state })
        .onConflictDoUpdate({ target: workers.id, set: { ...facts, ...now } });
      // What is sent to its containers has to find its new address.
      await notify(tx, "endpoint_changed", "");
    });
  }

  /**
   * Makes a worker's certificates count no more, at once and for good; nothing is placed on it from then on. Repeating it
   * changes nothing. Throws SchedulerError `unknown_worker` when there is none, or when several have the name.
   *
   * The row of a worker of an earlier version, which has no certificate, is forgotten.
   *
   * @param worker id or name; of those of earlier versions the id
   */
  async revoke(worker: string): Promise<{ readonly id: string; readonly name: string }> {
    return this.#database.transaction(async (tx) => {
      const found = await workersNamed(tx, worker);
      const [only] = found;
      // What an earlier version left counts for nothing anyhow: here it is forgotten.
      const [left] = only === undefined ? await forgetFormer(tx, worker) : [];
      if (left !== undefined) return left;
      if (only === undefined || found.length > 1) {
        const many = found.map(({ id }) => id).join(", ");
        throw new SchedulerError(
          "unknown_worker",
          only === undefined ? `no worker ${worker}` : `several workers are called ${worker}: ${many}`,
          { next: only === undefined ? "List them with `oci-node worker ls`." : "Give its id." },
        );
      }
      await tx
        .update(workerIdentities)
        .set({ revokedAt: sql`coalesce(${workerIdentities.revokedAt}, now())`, updatedAt: sql`now()` })
        .where(eq(workerIdentities.workerId, only.id));
      const state: WorkerState = "revoked";
      await tx.update(workers).set({ state }).where(eq(workers.id, only.id));
      return only;
    });
  }

  /** Whether this boot of a worker may be given something now. */
  async takes(id: string, bootNonce: string): Promise<boolean> {
    const [row] = await this.#database.query((db) =>
      db
        .select({ id: workers.id })
        .from(workers)
        .where(and(eq(workers.id, id), eq(workers.bootNonce, bootNonce), eq(workers.state, "ready"))),
    );
    return row !== undefined;
  }

  /** Whether this boot of the worker is known and not given up; false: it must register again. */
  async heartbeat(
    id: string,
    bootNonce: string,
    seen: { cpuMillis: number; memoryBytes: number; requestVersion: number },
  ): Promise<boolean> {
    const known = await this.#database.query((db) =>
      db
        .update(workers)
        .set({
          lastHeartbeatAt: sql`now()`,
          cpuMillisUsed: seen.cpuMillis,
          memoryBytesUsed: seen.memoryBytes,
          requestVersion: seen.requestVersion,
        })
        .where(and(eq(workers.id, id), eq(workers.bootNonce, bootNonce), eq(workers.state, "ready")))
        .returning({ id: workers.id }),
    );
    return known.length > 0;
  }

  async worker(id: string): Promise<Worker | undefined> {
    return (await this.#select({ id }))[0];
  }

  /** All workers by name, with what is placed on each: of one workspace, or of all. */
  async workers(workspaceId?: string): Promise<Worker[]> {
    return this.#select({ workspaceId });
  }

  async #select({
    id,
    workspaceId,
  }: {
    readonly id?: string;
    readonly workspaceId?: string | undefined;
  }): Promise<Worker[]> {
    const rows = await this.#database.query((db) =>
      db
        .select({
          worker: workers,
          certificateNotAfter: workerIdentities.certificateNotAfter,
          containers: sql<number>`count(${containers.id})::int`,
          cpuMillisPlaced: sql<number>`coalesce(sum(${containers.cpuMillis}), 0)::float8`,
          memoryBytesPlaced: sql<number>`coalesce(sum(${containers.memoryBytes}), 0)::float8`,
        })
        .from(workers)
        .leftJoin(workerIdentities, eq(workerIdentities.workerId, workers.id))
        .leftJoin(
          containers,
          and(
            eq(containers.workerId, workers.id),
            inArray(containers.state, [...placedStates]),
            workspaceId === undefined ? undefined : eq(containers.workspaceId, workspaceId),
          ),
        )
        .where(id === undefined ? undefined : eq(workers.id, id))
        .groupBy(workers.id, workerIdentities.workerId)
        .orderBy(asc(workers.name), asc(workers.id)),
    );
    return rows.map(({ worker, certificateNotAfter, ...placed }) => ({
      ...worker,
      state: worker.state as WorkerState,
      certificateNotAfter: certificateNotAfter ?? undefined,
      ...placed,
    }));
  }

  /** Marks the workers lost that stayed silent for longer, and returns the ids of those that were not lost before. */
  async markLost(silentMs: number): Promise<string[]> {
    const lost = await this.#database.query((db) =>
      db
        .update(workers)
        .set({ state: "lost" })
        .where(and(eq(workers.state, "ready"), lt(workers.lastHeartbeatAt, ago(silentMs))))
        .returning({ id: workers.id }),
    );
    return lost.map((worker) => worker.id);
  }

  /** The containers that are placed on a worker and have not ended. */
  async containersOn(workerId: string): Promise<Container[]> {
    const rows: ContainerRow[] = await this.#database.query((db) =>
      db
        .select()
        .from(containers)
        .where(and(eq(containers.workerId, workerId), inArray(containers.state, [...placedStates])))
        .orderBy(asc(containers.createdAt)),
    );
    return rows.map(toContainer);
  }
}

async function forgetFormer(tx: Queries, id: string): Promise<{ id: string; name: string }[]> {
  return tx
    .delete(workers)
    .where(and(eq(workers.id, id), withoutIdentity(tx)))
    .returning({ id: workers.id, name: workers.name });
}

/** Those of this id or name that are not revoked; where all are, the last that was let in. */
async function workersNamed(tx: Queries, worker: string): Promise<{ id: string; name: string }[]> {
  const letIn = await tx
    .select({
      id: workerIdentities.workerId,
      name: workerIdentities.name,
      revokedAt: workerIdentities.revokedAt,
    })
    .from(workerIdentities)
    .where(or(eq(workerIdentities.workerId, worker), eq(workerIdentities.name, worker)))
    .orderBy(desc(workerIdentities.createdAt))
    .for("update");
  const counting = letIn.filter(({ revokedAt }) => revokedAt === null);
  return (counting.length > 0 ? counting : letIn.slice(0, 1)).map(({ id, name }) => ({ id, name }));
}

async function placedOn(tx: Queries, workerId: string): Promise<{ cpuMillis: number; memoryBytes: number }> {
  const [sum] = await tx
    .select({
      cpuMillis: sql<number>`coalesce(sum(${containers.cpuMillis}), 0)::float8`,
      memoryBytes: sql<number>`coalesce(sum(${containers.memoryBytes}), 0)::float8`,
    })
    .from(containers)
    .where(and(eq(containers.workerId, workerId), inArray(containers.state, [...placedStates])));
  return sum ?? { cpuMillis: 0, memoryBytes: 0 };
}
