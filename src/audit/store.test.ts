import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import type { AuditEvent } from "./audit.ts";
import { AuditError } from "./error.ts";
import { type AuditFilter, type AuditRow, AuditStore } from "./store.ts";
import { AuditTrail } from "./trail.ts";

let postgres: TestPostgres;
let store: AuditStore;

beforeAll(async () => {
  postgres = await startTestPostgres();
  store = new AuditStore(postgres.database);
}, 60_000);
afterAll(() => postgres.end(), 60_000);

const execute = (statement: string) => postgres.database.query((db) => db.execute(sql.raw(statement)));

async function workspaceNamed(name: string): Promise<string> {
  const id = randomUUID();
  await execute(
    `insert into workspaces (id, name, wrapped_key, key_id) values ('${id}', '${name}', '\\x00', 'k')`,
  );
  return id;
}

const event = (more: Partial<AuditEvent> = {}): AuditEvent => ({
  actor: { kind: "token", id: "t1", name: "laptop", role: "owner" },
  action: "secret.create",
  target: { kind: "secret", id: "s1", name: "acme" },
  outcome: "ok",
  ...more,
});

async function listed(filter: AuditFilter): Promise<AuditRow[]> {
  const rows: AuditRow[] = [];
  for await (const page of store.list(filter)) rows.push(...page);
  return rows;
}

describe("the table", () => {
  test("is only ever added to: what changes, removes or empties it is refused", async () => {
    await store.append(event({ action: "secret.kept" }));
    for (const statement of [
      "update audit_events set actor_name = 'somebody else'",
      "update audit_events set actor_name = actor_name where false",
      "delete from audit_events",
      "truncate audit_events",
      "truncate workspaces cascade",
    ]) {
      const refused = execute(statement).then(
        () => "done",
        (error: { sqlState?: string }) => error.sqlState,
      );
      // The last one does not reach it: nothing refers to anything here.
      expect([statement, await refused]).toEqual([
        statement,
        statement.includes("cascade") ? "done" : "P0001",
      ]);
    }
    // As replicas and restored dumps are written: triggers that are not enabled for always are silent there.
    const replica = execute("set local session_replication_role = replica; delete from audit_events").then(
      () => "done",
      (error: { sqlState?: string }) => error.sqlState,
    );
    expect(await replica).toBe("P0001");
    expect(await listed({ action: "secret.kept" })).toHaveLength(1);
  });

  test("keeps what happened in a workspace, and its name, when that is removed with all that belongs to it", async () => {
    const workspaceId = await workspaceNamed("short-lived");
    await store.append(event({ workspaceId }));
    await execute(`delete from workspaces where id = '${workspaceId}'`);
    await store.append(event({ workspaceName: "short-lived", action: "workspace.delete" }));
    const rows = await listed({ workspace: "short-lived" });
    expect(rows.map(({ action, workspaceName }) => [action, workspaceName])).toEqual([
      ["secret.create", "short-lived"],
      ["workspace.delete", "short-lived"],
    ]);
    expect(await listed({ workspace: workspaceId })).toHaveLength(1);
  });

  test("takes the most hostile words of callers, without what a terminal or the database stumbles over", async () => {
    const name = `\u0000\u001b[2Jhidden\ud800${"x".repeat(10_000)}`;
    const fields = {
      "a\u0000b": "1\u00002",
      reference: "robot:hunter2@registry.test/app",
      digest: "app:1@sha256:00",
    };
    await store.append(event({ action: "secret.hostile", target: { kind: "secret", name }, fields }));
    const [row] = await listed({ action: "secret.hostile" });
    expect(row?.targetName).toMatch(/^\ufffd\ufffd\[2Jhidden\ufffdx+…$/);
    expect(row?.targetName).toHaveLength(255);
    expect(row?.fields).toEqual({
      "a\ufffdb": "1\ufffd2",
      reference: "…@registry.test/app",
      digest: "app:1@sha256:00",
    });
  });
});

describe("a list", () => {
  test("has what fits the filter: whose, what, to what, since when, the latest so many", async () => {
    const [one, other] = [await workspaceNamed("one"), await workspaceNamed("other")];
    const before = new Date();
    for (const workspaceId of [one, other])
      for (const action of ["image.build", "secret.update", "secret.use"])
        await store.append(
          event({ workspaceId, action, target: { kind: "secret", id: "f1", name: "filtered" } }),
        );
    const actions = async (filter: AuditFilter) => (await listed(filter)).map(({ action }) => action);
    expect(await actions({ workspaceId: one })).toEqual(["image.build", "secret.update", "secret.use"]);
    expect(await actions({ workspace: "other", action: "secret" })).toEqual(["secret.update", "secret.use"]);
    expect(await actions({ workspaceId: one, workspace: "other" })).toEqual([]);
    expect(await actions({ target: "filtered", action: "secret.use" })).toHaveLength(2);
    expect(await actions({ target: "f1", limit: 1 })).toEqual(["secret.use"]);
    expect(await actions({ target: "f1", since: before })).toHaveLength(6);
    expect(await actions({ target: "f1", since: new Date(Date.now() + 60_000) })).toEqual([]);
    expect(await actions({ target: "' or true --" })).toEqual([]);
  });

  test("has by a secret's name what was done with it under another's: builds, runs, workers that got it", async () => {
    const target = { kind: "image", name: "ghcr.io/acme/app:1" } as const;
    await store.append(event({ action: "image.build", target, fields: { secret: "kept-by-build" } }));
    await store.append(event({ action: "image.build", target, fields: { why: "kept-by-build" } }));
    const found = await listed({ target: "kept-by-build" });
    expect(found.map(({ fields }) => fields)).toEqual([{ secret: "kept-by-build" }]);
  });

  test("comes in pages, so that 100,000 events are never in memory at once", async () => {
    await execute(
      `insert into audit_events (actor_kind, actor_id, actor_name, action, target_kind, outcome)
       select 'token', 't', 'n', 'image.many', 'image', 'ok' from generate_series(1, 100000)`,
    );
    let count = 0;
    let largest = 0;
    const ids = new Set<number>();
    for await (const page of store.list({ action: "image.many" })) {
      count += page.length;
      largest = Math.max(largest, page.length);
      for (const { id } of page) ids.add(id);
    }
    expect([count, ids.size]).toEqual([100_000, 100_000]);
    expect(largest).toBeLessThanOrEqual(500);
  }, 60_000);
});

describe("the trail", () => {
  test("tries without leaving anything, not even a gap in the numbers", async () => {
    const trail = new AuditTrail(store);
    await trail.record(event({ action: "key.tried" }));
    for (let round = 0; round < 5; round += 1) await trail.ensureWritable(event({ action: "key.tried" }));
    await trail.record(event({ action: "key.tried" }));
    const [first, second, ...more] = await listed({ action: "key.tried" });
    expect(more).toEqual([]);
    expect(Number(second?.id) - Number(first?.id)).toBe(1);
  });

  test("refuses, by name, what could not be written, and goes on with what may go on", async () => {
    const trail = new AuditTrail(store);
    await execute("alter table audit_events add constraint full_disk check (action <> 'key.unwritable')");
    const unwritable = event({ action: "key.unwritable" });
    const failure = (work: Promise<void>) =>
      work.then(
        () => undefined,
        (error: unknown) => error as AuditError,
      );
    expect(await failure(trail.ensureWritable(unwritable))).toMatchObject({ code: "not_writable" });
    expect(await failure(trail.record(unwritable))).toBeInstanceOf(AuditError);
    expect(await failure(trail.record(unwritable))).toMatchObject({ code: "not_written" });
    await trail.note(unwritable);
    await trail.close();
    expect(await listed({ action: "key.unwritable" })).toEqual([]);
  });
});
