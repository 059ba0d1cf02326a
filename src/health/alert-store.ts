import { randomUUID } from "node:crypto";
import { and, desc, eq, isNull, sql } from "drizzle-orm";
import { livingStates } from "../container/state.ts";
import type { Database, Queries } from "../db/database.ts";
import { alerts, webhookDeliveries, webhooks } from "../db/schema-health.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { type AlertBody, type AlertKind, affectedMax, alertMessage, expiryThresholdDays } from "./alert.ts";

/** An alert that was told. */
export interface Alert {
  readonly id: string;
  readonly workspaceId: string;
  readonly secretId: string;
  readonly secretName: string;
  readonly kind: AlertKind;
  readonly message: string;
  readonly body: AlertBody;
  readonly createdAt: Date;
}

interface Due {
  readonly kind: AlertKind;
  readonly dedupe_key: string;
  readonly now_ms: number;
  readonly workspace_id: string;
  readonly workspace: string;
  readonly secret_id: string;
  readonly secret: string;
  readonly registry: string;
  readonly version: number;
  readonly state: string;
  readonly code: string | null;
  readonly reason: string | null;
  readonly next: string | null;
  readonly since_ms: number;
  readonly expires_ms: number | null;
}

type Affected = Pick<AlertBody, "images" | "imagesTotal" | "containers" | "containersTotal">;

const log = logger("health");
const batchMax = 100;
/** Old news goes, but for what the end of an episode is found by. */
const keptDays = 90;
const milliseconds = (column: string) => sql.raw(`(extract(epoch from ${column}) * 1000)::float8`);

/**
 * Alerts and, in the same transaction, their deliveries. What is due is found in the rows of health alone, so that nothing
 * is lost when a process ends between a check and its telling, and a threshold is crossed by plain passage of time. A key of each
 * piece of news keeps several schedulers from telling it twice. All times are the database's.
 */
export class AlertStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Tells what is due, at most 100 pieces of news, and returns what was told here; `more`: there may be more. */
  async raise(): Promise<{ readonly told: readonly Alert[]; readonly more: boolean }> {
    const due = await this.#due();
    if (due.length === 0) return { told: [], more: false };
    const affected = await this.#affected(due);
    const told: Alert[] = [];
    for (const one of due) {
      const alert = await this.#tell(one, affected.get(one.secret_id) ?? unused).catch((error: unknown) => {
        // The others' news is told all the same.
        log.error("an alert could not be kept", {
          secret: one.secret_id,
          kind: one.kind,
          error: messageOf(error),
        });
        return undefined;
      });
      if (alert !== undefined) told.push(alert);
    }
    return { told, more: due.length === batchMax && told.length > 0 };
  }

  /** What a workspace was told, the latest first. */
  async list(workspaceId: string, limit: number): Promise<Alert[]> {
    const rows = await this.#database.query((db) =>
      db
        .select()
        .from(alerts)
        .where(eq(alerts.workspaceId, workspaceId))
        .orderBy(desc(alerts.createdAt), desc(alerts.id))
        .limit(limit),
    );
    return rows.map(toAlert);
  }

  /** Removes what is old. Failures that have not ended stay: their end is news, too. */
  async prune(): Promise<void> {
    await this.#database.query((db) =>
      db.execute(sql`
        delete from alerts a where a.created_at < now() - ${keptDays} * interval '1 day'
          and (a.kind <> 'failing' or exists (select 1 from alerts r where r.dedupe_key = 'recovered:' || a.id))`),
    );
  }

  /**
   * A failure is told once per version and episode, which ends when the secret works; its end once, and only if the failure
   * was told. An expiry is told once per version, date and threshold, and only for the nearest threshold.
   */
  async #due(): Promise<readonly Due[]> {
    const [near, nearer, far] = expiryThresholdDays;
    const rows = await this.#database.query((db) =>
      db.execute(sql`
        with failed as (
          select distinct on (a.secret_id) a.secret_id, a.id, (a.body -> 'secret' ->> 'version')::int as version,
            exists (select 1 from alerts r where r.dedupe_key = 'recovered:' || a.id) as over
          from alerts a where a.kind = 'failing' order by a.secret_id, a.created_at desc, a.id desc
        ), current as (
          select h.*, s.name as secret, s.registry, w.name as workspace,
            case when h.expires_at <= now() + ${near} * interval '1 day' then ${near}::int
                 when h.expires_at <= now() + ${nearer} * interval '1 day' then ${nearer}::int
                 when h.expires_at <= now() + ${far} * interval '1 day' then ${far}::int end as days
          from secret_health h
          join secrets s on s.id = h.secret_id and s.current_version = h.version
          join workspaces w on w.id = s.workspace_id
          where h.state <> 'ok' or h.expires_at is not null or h.secret_id in (select secret_id from failed where not over)
        ), due as (
          select 'failing' as kind, 'failing:' || c.secret_id || ':' || c.version || ':' || coalesce(f.id::text, 'first') as dedupe_key, c.*
          from current c left join failed f on f.secret_id = c.secret_id
          where c.state = 'failing' and (f.id is null or f.over or f.version <> c.version)
          union all
          select 'recovered', 'recovered:' || f.id, c.*
          from current c join failed f on f.secret_id = c.secret_id
          where c.state in ('ok', 'expiring') and not f.over
          union all
          select 'expiring', 'expiring:' || c.secret_id || ':' || c.version || ':' ||
            (extract(epoch from c.expires_at) * 1000)::bigint || ':' || c.days, c.*
          from current c where c.state <> 'failing' and c.days is not null and c.expires_at > now()
        )
        select d.kind, d.dedupe_key, ${milliseconds("now()")} as now_ms, d.workspace_id, d.workspace, d.secret_id, d.secret,
          d.registry, d.version, d.state, d.code, d.reason, d.next, ${milliseconds("d.since")} as since_ms,
          ${milliseconds("d.expires_at")} as expires_ms
        from due d where not exists (select 1 from alerts a where a.dedupe_key = d.dedupe_key)
        order by d.since limit ${batchMax}`),
    );
    return rows as unknown as readonly Due[];
  }

  /** Images of each secret and their containers that have not ended: how many, and the first of them. */
  async #affected(due: readonly Due[]): Promise<ReadonlyMap<string, Affected>> {
    const list = (values: readonly string[]) =>
      sql.join(
        values.map((value) => sql`${value}`),
        sql`, `,
      );
    const rows = await this.#database.query((db) =>
      db.execute(sql`
        with used as (
          select i.id, i.reference, i.credential_secret_id as secret_id from images i
          where i.workspace_id in (${list([...new Set(due.map((one) => one.workspace_id))])})
            and i.credential_secret_id in (${list([...new Set(due.map((one) => one.secret_id))])})
        ), things as (
          select secret_id, 'image' as kind, id, reference from used
          union all
          select u.secret_id, 'container', c.id, '' from used u join containers c on c.image_id = u.id
          where c.state in (${list(livingStates)})
        ), ranked as (
          select *, row_number() over of_kind as nth, count(*) over (partition by secret_id, kind)::int as total
          from things window of_kind as (partition by secret_id, kind order by reference, id)
        )
        select secret_id, kind, id, reference, total from ranked where nth <= ${affectedMax} order by nth`),
    );
    return grouped(rows as unknown as readonly AffectedRow[]);
  }

  async #tell(due: Due, affected: Affected): Promise<Alert | undefined> {
    const body = bodyOf(due, affected);
    const row = {
      id: randomUUID(),
      workspaceId: due.workspace_id,
      secretId: due.secret_id,
      secretName: due.secret,
      kind: due.kind,
      dedupeKey: due.dedupe_key,
      message: alertMessage(due.kind, body, due.now_ms),
      body,
    };
    return await this.#database.transaction(async (tx) => {
      const [inserted] = await tx.insert(alerts).values(row).onConflictDoNothing().returning();
      if (inserted === undefined) return undefined;
      await deliverToAll(tx, inserted);
      return toAlert(inserted);
    });
  }
}

async function deliverToAll(tx: Queries, alert: typeof alerts.$inferSelect): Promise<void> {
  const receivers = await tx
    .select({ id: webhooks.id })
    .from(webhooks)
    .where(and(eq(webhooks.workspaceId, alert.workspaceId), isNull(webhooks.disabledAt)))
    .for("key share");
  if (receivers.length === 0) return;
  await tx
    .insert(webhookDeliveries)
    .values(receivers.map(({ id }) => ({ webhookId: id, alertId: alert.id })));
}

const unused: Affected = { images: [], imagesTotal: 0, containers: [], containersTotal: 0 };

interface AffectedRow {
  readonly secret_id: string;
  readonly kind: "image" | "container";
  readonly id: string;
  readonly reference: string;
  readonly total: number;
}

function grouped(rows: readonly AffectedRow[]): ReadonlyMap<string, Affected> {
  const all = new Map<string, Affected>();
  for (const { secret_id: secretId, kind, id, reference, total } of rows) {
    const known = all.get(secretId) ?? unused;
    all.set(
      secretId,
      kind === "image"
        ? { ...known, images: [...known.images, { id, reference }], imagesTotal: total }
        : { ...known, containers: [...known.containers, id], containersTotal: total },
    );
  }
  return all;
}

function bodyOf(due: Due, affected: Affected): AlertBody {
  const { workspace, registry, state, reason, code, next } = due;
  return {
    workspace,
    secret: { id: due.secret_id, name: due.secret, version: due.version },
    registry,
    state,
    reason,
    code,
    next,
    since: new Date(due.since_ms).toISOString(),
    expiresAt: due.expires_ms === null ? null : new Date(due.expires_ms).toISOString(),
    ...affected,
  };
}

function toAlert(row: typeof alerts.$inferSelect): Alert {
  const { id, workspaceId, secretId, secretName, message, createdAt } = row;
  const kind = row.kind as AlertKind;
  return { id, workspaceId, secretId, secretName, kind, message, body: row.body as AlertBody, createdAt };
}
