import { and, asc, desc, eq, gt, gte, lte, or, type SQL, sql } from "drizzle-orm";
import type { Database, Queries } from "../db/database.ts";
import { workspaces } from "../db/schema.ts";
import { workerIdentities } from "../db/schema-cluster.ts";
import { auditEvents } from "../db/schema-health.ts";
import type { AuditEvent } from "./audit.ts";
import { printable, printableFields } from "./printable.ts";

/** An event as it was written down. */
export type AuditRow = typeof auditEvents.$inferSelect;

/** Which events; what is absent does not matter. */
export interface AuditFilter {
  readonly since?: Date | undefined;
  readonly workspaceId?: string | undefined;
  /** Id, or name at that time: of workspaces that are gone, too. */
  readonly workspace?: string | undefined;
  /** `secret.update`, or the kind of its target: `secret`. */
  readonly action?: string | undefined;
  /** Id or name: of what it was done to, or of what was used or made in it, as a secret by a build. */
  readonly target?: string | undefined;
  /** The latest so many. */
  readonly limit?: number | undefined;
}

const pageRows = 500;
/** Fields that name things: a build that keeps a credential touches that secret, though its target is the image. */
const involved = ["secret", "image", "container", "worker"] as const;

/** The table that is only ever added to. */
export class AuditStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws DbError */
  async append(event: AuditEvent): Promise<void> {
    await this.#database.query((db) => insert(db, event));
  }

  /** Whether an event could be written now: one is, and is taken back. @throws DbError */
  async tryAppend(event: AuditEvent): Promise<void> {
    const takenBack = new Error("taken back");
    await this.#database.query(async (db) => {
      const trial = db.transaction(async (transaction) => {
        // Below those of the sequence, so that no number of it is missing later on.
        await insert(transaction, event, -Math.ceil(Math.random() * 2 ** 52));
        throw takenBack;
      });
      await trial.catch((error: unknown) => {
        if (error !== takenBack) throw error;
      });
    });
  }

  /** The events of a filter in pages, the oldest first; what is written meanwhile is not among them. */
  async *list(filter: AuditFilter): AsyncGenerator<AuditRow[]> {
    const wanted = conditions(filter);
    const [bounds] = await this.#database.query((db) => {
      const newest = db
        .select({ id: auditEvents.id })
        .from(auditEvents)
        .where(and(...wanted))
        .orderBy(desc(auditEvents.id));
      const latest = (filter.limit === undefined ? newest : newest.limit(filter.limit)).as("latest");
      return db
        .select({ first: sql<string | null>`min(${latest.id})`, last: sql<string | null>`max(${latest.id})` })
        .from(latest);
    });
    if (bounds === undefined || bounds.first === null || bounds.last === null) return;
    const last = Number(bounds.last);
    for (let after = Number(bounds.first) - 1; after < last; ) {
      const rows = await this.#page([...wanted, gt(auditEvents.id, after), lte(auditEvents.id, last)]);
      if (rows.length === 0) return;
      yield rows;
      after = rows.at(-1)?.id ?? last;
    }
  }

  /** Whether a workspace of this name was removed at any time. */
  async removedWorkspace(name: string): Promise<boolean> {
    const [row] = await this.#database.query((db) =>
      db
        .select({ id: auditEvents.id })
        .from(auditEvents)
        .where(
          and(
            eq(auditEvents.targetKind, "workspace"),
            eq(auditEvents.targetName, name),
            eq(auditEvents.action, "workspace.delete"),
            eq(auditEvents.outcome, "ok"),
          ),
        )
        .limit(1),
    );
    return row !== undefined;
  }

  /** The name of a workspace that there is. */
  async workspaceName(workspaceId: string): Promise<string | undefined> {
    const [row] = await this.#database.query((db) =>
      db.select({ name: workspaces.name }).from(workspaces).where(eq(workspaces.id, workspaceId)),
    );
    return row?.name;
  }

  #page(wanted: readonly SQL[]): Promise<AuditRow[]> {
    return this.#database.query((db) =>
      db
        .select()
        .from(auditEvents)
        .where(and(...wanted))
        .orderBy(asc(auditEvents.id))
        .limit(pageRows),
    );
  }
}

function conditions(filter: AuditFilter): SQL[] {
  const { since, workspaceId, workspace, action, target } = filter;
  const all = [
    since && gte(auditEvents.at, since),
    workspaceId === undefined ? undefined : eq(auditEvents.workspaceId, workspaceId),
    workspace === undefined
      ? undefined
      : or(eq(auditEvents.workspaceName, workspace), eq(sql`${auditEvents.workspaceId}::text`, workspace)),
    action === undefined
      ? undefined
      : action.includes(".")
        ? eq(auditEvents.action, action)
        : sql`split_part(${auditEvents.action}, '.', 1) = ${action}`,
    target === undefined
      ? undefined
      : or(
          eq(auditEvents.targetId, target),
          eq(auditEvents.targetName, target),
          ...involved.map((field) => eq(sql`${auditEvents.fields} ->> ${field}`, target)),
        ),
  ];
  return all.filter((condition) => condition !== undefined);
}

/** Names that the event does not bring are those of this moment: its reader finds them when they are gone. */
function insert(db: Queries, event: AuditEvent, id?: number) {
  const { actor, target, workspaceId, workspaceName } = event;
  const text = (value: string | undefined) => (value === undefined ? undefined : printable(value));
  const named = text(workspaceName);
  return db.insert(auditEvents).values({
    ...(id === undefined ? {} : { id }),
    actorKind: actor.kind,
    actorId: printable(actor.id),
    actorName: actor.kind === "worker" && actor.name === "" ? nameOfWorker(actor.id) : printable(actor.name),
    role: text(actor.role),
    workspaceId: workspaceId ?? (named === undefined ? undefined : idOfWorkspace(named)),
    workspaceName: named ?? (workspaceId === undefined ? undefined : nameOfWorkspace(workspaceId)),
    action: event.action,
    targetKind: target.kind,
    targetId: text(target.id),
    targetName: text(target.name),
    outcome: event.outcome,
    code: text(event.code),
    address: text(event.address),
    fields: printableFields(event.fields ?? {}),
  });
}

const nameOfWorker = (id: string) =>
  sql`coalesce((select ${workerIdentities.name} from ${workerIdentities} where ${workerIdentities.workerId} = ${id}), '')`;
const idOfWorkspace = (name: string) =>
  sql`(select ${workspaces.id} from ${workspaces} where ${workspaces.name} = ${name})`;
const nameOfWorkspace = (id: string) =>
  sql`(select ${workspaces.name} from ${workspaces} where ${workspaces.id} = ${id}::uuid)`;
