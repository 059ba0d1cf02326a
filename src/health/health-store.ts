import { and, eq, gt, lt, ne, or, sql } from "drizzle-orm";
import { type Database, notify, type Queries, type Subscription } from "../db/database.ts";
import { endedContainerStates, secrets } from "../db/schema.ts";
import { secretHealth } from "../db/schema-health.ts";
import { opaqueType } from "../secret/opaque.ts";
import { type CheckPlace, placeNamed } from "./check.ts";
import type { SecretHealth } from "./health.ts";
import type { CheckedSecret } from "./health-after.ts";
import { never, toHealth, toRow } from "./health-row-store.ts";
import { firstChecksWithinMs } from "./plan.ts";
import { type HealthTransition, isTransition } from "./transition.ts";

/** Who claims, for how long, and whom he leaves alone. */
export interface Claim {
  readonly now: Date;
  readonly holder: string;
  readonly leaseMs: number;
  /** Registries that are asked already. */
  readonly busy: readonly string[];
  /** Workspaces whose secrets were claimed, by id, the last of them last. */
  readonly served?: readonly string[];
}

/** A secret, with what its check needs beside its value. */
export interface SecretToCheck extends Omit<CheckedSecret, "version"> {
  /** Where its owner wants it checked: `REPOSITORY` or `REPOSITORY:TAG`. */
  readonly repository: string | undefined;
}

/** Repositories in which one secret is checked. */
const placesMax = 3;
/** What has just been looked at is not looked at again because many say the same at once. */
const debounceMs = 3_000;
/** Those that could not be asked so often come after all others. */
const patientFailures = 3;

const ended = sql.join(
  endedContainerStates.map((state) => sql`${state}`),
  sql`, `,
);
const when = (date: Date) => sql`${date.toISOString()}::timestamptz`;

/**
 * How secrets fare, for any number of gateways and schedulers at once. Whose turn it is to check is a lease, never a lock that
 * a connection holds. Times are the caller's.
 */
export class HealthStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Gives each secret that nobody knows anything of its first check, spread over a time that grows with their number. */
  async adopt(now: Date): Promise<number> {
    const rows = await this.#database.query((db) =>
      db.execute<{ id: string }>(sql`
        insert into secret_health (secret_id, workspace_id, version, state, since, next_check_at)
        select id, workspace_id, current_version, 'unknown', ${when(now)},
          ${when(now)} + random() * least(count(*) over (), ${firstChecksWithinMs / 1000}) * interval '1 second'
        from secrets s
        where s.credential_type <> ${opaqueType} and not exists (select from secret_health h where h.secret_id = s.id)
        on conflict do nothing
        returning secret_id`),
    );
    return rows.length;
  }

  /**
   * The next secret that is due: of the workspace that has the fewest checks under way, then of the one that was not served for
   * longest, so that nobody's many secrets keep others' waiting; those of registries that answer before those of others, the
   * longest due first.
   */
  async claim({ now, holder, leaseMs, busy, served = [] }: Claim): Promise<SecretToCheck | undefined> {
    const free = sql`h.next_check_at <= ${when(now)} and (h.lease_until is null or h.lease_until < ${when(now)})`;
    const others =
      busy.length === 0
        ? sql``
        : sql`and s.registry not in (${sql.join(
            busy.map((host) => sql`${host}`),
            sql`, `,
          )})`;
    return this.#database.transaction(async (tx) => {
      const [due] = await tx.execute<{ secret_id: string }>(sql`
        with running as (
          select workspace_id, count(*) as count from secret_health where lease_until >= ${when(now)} group by workspace_id
        )
        select h.secret_id from secret_health h
        join secrets s on s.id = h.secret_id
        left join running r on r.workspace_id = h.workspace_id
        where ${free} ${others}
        order by coalesce(r.count, 0),
          coalesce(array_position(string_to_array(${served.join(",")}, ',')::uuid[], h.workspace_id), 0),
          h.state = 'unknown' and h.failures > ${patientFailures}, h.next_check_at
        limit 1 for update of h skip locked`);
      if (due === undefined) return undefined;
      const leaseUntil = new Date(now.getTime() + leaseMs);
      const mine = eq(secretHealth.secretId, due.secret_id);
      await tx.update(secretHealth).set({ claimedBy: holder, leaseUntil }).where(mine);
      const [row] = await tx.select().from(secrets).where(eq(secrets.id, due.secret_id));
      return row === undefined ? undefined : toCheck(row);
    });
  }

  /** Gives back what was claimed and not checked. */
  async release(secretId: string, holder: string): Promise<void> {
    await this.#database.query((db) =>
      db
        .update(secretHealth)
        .set({ claimedBy: null, leaseUntil: null })
        .where(and(eq(secretHealth.secretId, secretId), eq(secretHealth.claimedBy, holder))),
    );
  }

  /** `undefined`: there is no such secret. */
  async secret(workspaceId: string, name: string): Promise<SecretToCheck | undefined> {
    const [row] = await this.#database.query((db) =>
      db
        .select()
        .from(secrets)
        .where(and(eq(secrets.workspaceId, workspaceId), eq(secrets.name, name))),
    );
    return row === undefined ? undefined : toCheck(row);
  }

  /** What its owner said of it. Absent: as it was; null: nothing any more. */
  async setFacts(
    secretId: string,
    facts: { readonly repository?: string | undefined; readonly declaredExpiry?: Date | null | undefined },
  ): Promise<void> {
    const { repository, declaredExpiry } = facts;
    const set = {
      ...(repository === undefined ? {} : { repository }),
      ...(declaredExpiry === undefined ? {} : { declaredExpiry }),
    };
    if (Object.keys(set).length === 0) return;
    await this.#database.query((db) => db.update(secrets).set(set).where(eq(secrets.id, secretId)));
  }

  async currentVersion(secretId: string): Promise<number | undefined> {
    const [row] = await this.#database.query((db) =>
      db.select({ version: secrets.currentVersion }).from(secrets).where(eq(secrets.id, secretId)),
    );
    return row?.version;
  }

  /**
   * Where a secret is checked: its own repository, then those of the images that use it, with living containers and
   * the latest builds first. In each a manifest of such an image, where there is one.
   */
  async places(secret: SecretToCheck): Promise<CheckPlace[]> {
    const own = secret.repository === undefined ? undefined : placeNamed(secret.repository);
    const rows = await this.#database.query((db) =>
      db.execute<{ repository: string; digest: string }>(sql`
        select i.repository, (array_agg(i.manifest_digest order by i.updated_at desc))[1] as digest
        from images i
        where i.workspace_id = ${secret.workspaceId} and i.registry = ${secret.registry}
          and ${usesSecret(secret)}
        group by i.repository
        order by i.repository = ${own?.repository ?? ""} desc, bool_or(exists (
          select from containers c where c.image_id = i.id and c.state not in (${ended}))) desc,
          max(i.updated_at) desc
        limit ${placesMax}`),
    );
    const places = rows.map(({ repository, digest }) => ({ repository, digest }));
    if (own === undefined || places.some(({ repository }) => repository === own.repository)) return places;
    return [own, ...places].slice(0, placesMax);
  }

  /**
   * Writes down what a check of a version found, and gives its turn back. `undefined`: nothing that others want to know, or
   * nothing at all as the secret has another version by now, is gone, or was checked again since.
   *
   * @param at when the check began
   */
  async record(
    checked: CheckedSecret,
    at: Date,
    judge: (former: SecretHealth | undefined) => SecretHealth,
  ): Promise<HealthTransition | undefined> {
    return this.#database.transaction(async (tx) => {
      const { secretId, version } = checked;
      const [secret] = await tx.select().from(secrets).where(eq(secrets.id, secretId)).for("share");
      if (secret === undefined) return undefined;
      const [row] = await tx
        .select()
        .from(secretHealth)
        .where(eq(secretHealth.secretId, secretId))
        .for("update");
      if (secret.currentVersion !== version) {
        await this.#dueNow(tx, secretId, at);
        return undefined;
      }
      if (row?.checkedAt != null && row.checkedAt > at && row.version === version) return undefined;
      const former = row === undefined ? undefined : toHealth(row, secret);
      const to = judge(former);
      const values = { ...toRow(to), claimedBy: null, leaseUntil: null, updatedAt: at };
      await tx
        .insert(secretHealth)
        .values(values)
        .onConflictDoUpdate({ target: secretHealth.secretId, set: values });
      return isTransition(former, to) ? { from: former, to, at } : undefined;
    });
  }

  /**
   * Somebody saw a secret refused, or seen to work: it is checked at once if that is news. A refusal that is known is none,
   * so that what others try in vain makes no more of it.
   */
  async seen(secretId: string, what: "refused" | "proved", now: Date): Promise<void> {
    const { state, checkedAt, nextCheckAt } = secretHealth;
    // What works here and there is no reason to try a password where that may lock its account.
    const open = lt(nextCheckAt, never);
    const news =
      what === "refused" ? ne(state, "failing") : and(open, or(eq(state, "failing"), eq(state, "unknown")));
    // Not at once again, but soon: it may have changed since.
    const due = sql`greatest(${when(now)}, ${checkedAt} + ${debounceMs} * interval '1 millisecond')`;
    await this.#database.transaction(async (tx) => {
      const changed = await tx
        .update(secretHealth)
        .set({ nextCheckAt: due })
        .where(and(eq(secretHealth.secretId, secretId), news, gt(nextCheckAt, due)))
        .returning({ id: secretHealth.secretId });
      if (changed.length > 0) await notify(tx, "secret_due", secretId);
    });
  }

  /** Calls back when something is due before its time, and at first and after a broken connection. */
  async subscribeDue(onDue: () => void): Promise<Subscription> {
    return this.#database.listen("secret_due", onDue, onDue);
  }

  async #dueNow(tx: Queries, secretId: string, at: Date): Promise<void> {
    await tx
      .update(secretHealth)
      .set({ nextCheckAt: at, claimedBy: null, leaseUntil: null })
      .where(eq(secretHealth.secretId, secretId));
    await notify(tx, "secret_due", secretId);
  }
}

/** Of an image `i`: it was built with the secret, or with one of that name which is gone. */
function usesSecret({ secretId, secretName }: SecretToCheck) {
  return sql`(i.credential_secret_id = ${secretId} or (i.credential_secret_name = ${secretName}
    and not exists (select from secrets x where x.id::text = i.credential_secret_id)))`;
}

function toCheck(row: typeof secrets.$inferSelect): SecretToCheck {
  return {
    secretId: row.id,
    workspaceId: row.workspaceId,
    secretName: row.name,
    registry: row.registry,
    repository: row.repository ?? undefined,
    declaredExpiry: row.declaredExpiry ?? undefined,
  };
}
