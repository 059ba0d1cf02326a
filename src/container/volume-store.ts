import { and, asc, eq, inArray, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { containers } from "../db/schema.ts";
import { volumes } from "../db/schema-endpoint.ts";
import { printable } from "../std/printable.ts";
import { ContainerError } from "./error.ts";
import { livingStates } from "./state.ts";

/** A volume with a name. */
export interface Volume {
  readonly name: string;
  /** Where it is. */
  readonly workerId: string;
  /** Containers that have not ended and use it. */
  readonly containerIds: readonly string[];
  readonly createdAt: Date;
}

/** Where a workspace's volumes are. A volume is made where the first container that uses it is placed. */
export class VolumeStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** A workspace's volumes, by name. */
  async list(workspaceId: string): Promise<Volume[]> {
    return this.#database.query(async (db) => {
      const rows = await db
        .select()
        .from(volumes)
        .where(eq(volumes.workspaceId, workspaceId))
        .orderBy(asc(volumes.name));
      const users = rows.length === 0 ? [] : await usersOf(db, workspaceId);
      return rows.map(({ name, workerId, createdAt }) => ({
        name,
        workerId,
        createdAt,
        containerIds: users.filter((user) => user.names.includes(name)).map(({ id }) => id),
      }));
    });
  }

  /** Throws ContainerError `volume_not_found`, or `volume_in_use` while a container that has not ended uses it. */
  async unused(workspaceId: string, name: string): Promise<Volume> {
    const volume = (await this.list(workspaceId)).find((each) => each.name === name);
    if (volume === undefined) throw unknownVolume(name);
    if (volume.containerIds.length > 0) throw volumeInUse(volume);
    return volume;
  }

  /** Forgets a volume, unless a container was placed with it meanwhile: then there is one of that name again. */
  async forget(workspaceId: string, name: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const key = and(eq(volumes.workspaceId, workspaceId), eq(volumes.name, name));
      // Held, so that a placement comes before this or after it.
      await tx.select({ name: volumes.name }).from(volumes).where(key).for("update");
      const users = await usersOf(tx, workspaceId);
      const placed = users.some((user) => user.names.includes(name) && user.workerId !== null);
      if (!placed) await tx.delete(volumes).where(key);
    });
  }
}

/** Which worker has each of some volumes; those that nobody made yet are missing. */
export async function volumeWorkersIn(
  queries: Queries,
  workspaceId: string,
  names: readonly string[],
): Promise<Map<string, string>> {
  if (names.length === 0) return new Map();
  const rows = await queries
    .select({ name: volumes.name, workerId: volumes.workerId })
    .from(volumes)
    .where(and(eq(volumes.workspaceId, workspaceId), inArray(volumes.name, [...names])))
    .orderBy(asc(volumes.name))
    .for("share");
  return new Map(rows.map(({ name, workerId }) => [name, workerId]));
}

/**
 * Makes volumes a worker's that are nobody's yet, in the transaction of a placement.
 *
 * @returns false: one is another worker's (by now)
 */
export async function bindVolumesIn(
  tx: Queries,
  workspaceId: string,
  names: readonly string[],
  workerId: string,
): Promise<boolean> {
  if (names.length === 0) return true;
  // Each in the same order, so that two placements wait for each other and not in a circle.
  const values = [...names].sort().map((name) => ({ workspaceId, name, workerId }));
  const made = await tx
    .insert(volumes)
    .values(values)
    .onConflictDoNothing()
    .returning({ name: volumes.name });
  const bound = await volumeWorkersIn(tx, workspaceId, names);
  if (names.every((name) => bound.get(name) === workerId)) return true;
  const inVain = made.map(({ name }) => name);
  if (inVain.length > 0)
    await tx.delete(volumes).where(and(eq(volumes.workspaceId, workspaceId), inArray(volumes.name, inVain)));
  return false;
}

/** The containers of a workspace that have not ended and have volumes with names. */
async function usersOf(
  queries: Queries,
  workspaceId: string,
): Promise<{ readonly id: string; readonly workerId: string | null; readonly names: string[] }[]> {
  const rows = await queries
    .select({
      id: containers.id,
      workerId: containers.workerId,
      mounts: sql<{ source: string }[]>`${containers.spec} -> 'options' -> 'volumes'`,
    })
    .from(containers)
    .where(
      and(
        eq(containers.workspaceId, workspaceId),
        inArray(containers.state, [...livingStates]),
        sql`jsonb_array_length(coalesce(${containers.spec} -> 'options' -> 'volumes', '[]'::jsonb)) > 0`,
      ),
    )
    .orderBy(asc(containers.createdAt));
  return rows.map(({ id, workerId, mounts }) => ({
    id,
    workerId,
    names: mounts.map(({ source }) => source),
  }));
}

export function unknownVolume(name: string): ContainerError {
  return new ContainerError("volume_not_found", `no volume ${printable(name)} in this workspace`, {
    next: "List them with `oci-node volume ls`.",
  });
}

export function volumeInUse({ name, containerIds }: Pick<Volume, "name" | "containerIds">): ContainerError {
  const ids = containerIds.slice(0, 5).join(", ");
  const more = containerIds.length > 5 ? ` and ${containerIds.length - 5} more` : "";
  const by = ids === "" ? "a container that its worker still has" : `${ids}${more}`;
  return new ContainerError("volume_in_use", `volume ${name} is used by ${by}`, {
    next: "Stop its containers first.",
  });
}
