import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { Database } from "../db/database.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertWorkspace } from "../db/rows.test-kit.ts";
import { webhookDeliveries, webhooks } from "../db/schema-health.ts";
import { daysAhead, insertSecret, type SecretRows } from "./alert.test-kit.ts";
import { AlertStore } from "./alert-store.ts";

let server: TestPostgres;
let store: AlertStore;
let workspaceId: string;
let secret: SecretRows;
beforeAll(async () => {
  server = await startTestPostgres();
  store = new AlertStore(server.database);
}, 60_000);
afterAll(() => server.end(), 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(server.database);
  secret = await insertSecret(server.database, workspaceId);
});

/** What is told now: of this test's secrets, as every other is told of before. */
const told = async () => (await store.raise()).told.map(({ kind, secretId }) => `${kind} ${secretId}`);
const failing = (change: object = {}) =>
  secret.fares({
    state: "failing",
    code: "unauthorized",
    reason: "ghcr.io refuses the credential",
    ...change,
  });

describe("a failing secret", () => {
  test("is told of once, however often one looks", async () => {
    await failing();
    expect(await told()).toEqual([`failing ${secret.id}`]);
    expect(await told()).toEqual([]);
    await failing({ reason: "and again" });
    expect(await told()).toEqual([]);
  });

  test("that was told is told to work again, once, and a new episode is news again", async () => {
    await failing();
    await told();
    await secret.fares({});
    expect(await told()).toEqual([`recovered ${secret.id}`]);
    expect(await told()).toEqual([]);
    await failing();
    expect(await told()).toEqual([`failing ${secret.id}`]);
    await secret.fares({ state: "expiring" });
    expect(await told()).toEqual([`recovered ${secret.id}`]);
  });

  test("is the same episode while nobody can be asked", async () => {
    await failing();
    await told();
    await secret.fares({ state: "unknown", code: "unreachable" });
    expect(await told()).toEqual([]);
    await failing();
    expect(await told()).toEqual([]);
  });

  test("is told of again when a new version fails, too, and works again once", async () => {
    await failing();
    await told();
    await secret.update();
    expect(await told()).toEqual([]);
    await failing();
    expect(await told()).toEqual([`failing ${secret.id}`]);
    await secret.update();
    await secret.fares({});
    expect(await told()).toEqual([`recovered ${secret.id}`]);
    expect(await told()).toEqual([]);
  });

  test("is not told of by what was known of a version before", async () => {
    await failing();
    await secret.update();
    expect(await told()).toEqual([]);
  });

  test("names what it stops: how many images and containers, and the first of them", async () => {
    for (const name of ["a", "b", "c", "d"])
      await secret.image(`ghcr.io/o/${name}:1`, name === "a" ? ["running", "pending", "exited"] : []);
    await failing({ next: "Give it another.", since: new Date("2026-03-04T05:06:07Z") });
    const [alert] = (await store.raise()).told;
    expect(alert?.body).toMatchObject({
      imagesTotal: 4,
      containersTotal: 2,
      state: "failing",
      code: "unauthorized",
    });
    expect(alert?.body.containers).toHaveLength(2);
    expect(alert?.message).toMatch(
      /^The secret secret-\d+ \(version 1\) of the workspace w-\S+ for ghcr\.io has been failing since 2026-03-04 05:06 UTC: ghcr\.io refuses the credential\. It is used by 4 images \(ghcr\.io\/o\/a:1, ghcr\.io\/o\/b:1, ghcr\.io\/o\/c:1 and 1 more\) and 2 containers that have not ended \(\S+, \S+\)\. New runs .* Give it another\.$/,
    );
  });

  test("keeps a bounded number of what it stops", async () => {
    const image = await secret.image("ghcr.io/o/a:1");
    await server.database.query((db) =>
      db.execute(sql`insert into containers (id, workspace_id, image_id, reference, state, spec)
        select 'c-' || ${secret.id} || n, ${workspaceId}::uuid, ${image}, 'r', 'running', '{}'::jsonb from generate_series(1, 250) n`),
    );
    await failing();
    const [alert] = (await store.raise()).told;
    expect([alert?.body.containers.length, alert?.body.containersTotal]).toEqual([100, 250]);
  });
});

describe("a secret that ends", () => {
  const expiring = (days: number, state = "expiring") => secret.fares({ state, expiresAt: daysAhead(days) });
  test.each([
    [13.9, 14],
    [14.1, undefined],
    [3.1, 14],
    [2.9, 3],
    [1.1, 3],
    [0.9, 1],
    [0.001, 1],
    [-0.001, undefined],
  ])("in %p days is told of by the threshold of %p", async (days, threshold) => {
    await expiring(days);
    const [alert] = (await store.raise()).told;
    expect(alert === undefined ? undefined : await thresholdOf(alert.id)).toBe(threshold as never);
    expect(await told()).toEqual([]);
  });

  const thresholdOf = async (id: string) => {
    const rows = await server.database.query((db) =>
      db.execute<{ key: string }>(sql`select dedupe_key as key from alerts where id = ${id}`),
    );
    return Number(rows[0]?.key.split(":").at(-1));
  };

  test("is told of at each threshold that passes, once, and again for another end or version", async () => {
    const end = daysAhead(10);
    await secret.fares({ expiresAt: end });
    expect(await told()).toEqual([`expiring ${secret.id}`]);
    await secret.fares({ state: "expiring", expiresAt: end });
    expect(await told()).toEqual([]);
    await expiring(2);
    expect(await told()).toEqual([`expiring ${secret.id}`]);
    await secret.update();
    await expiring(2);
    expect(await told()).toEqual([`expiring ${secret.id}`]);
  });

  test("is told of by the passage of time alone, also where nobody could be asked", async () => {
    await secret.fares({ state: "unknown", expiresAt: daysAhead(10) });
    expect(await told()).toEqual([`expiring ${secret.id}`]);
    const later = await inDays(8);
    const { told: news } = await new AlertStore(later).raise();
    expect(news.map(({ secretId }) => secretId)).toContain(secret.id);
    expect((await new AlertStore(later).raise()).told).toEqual([]);
    await later.close();
  });

  /** The same database, to whose connection it is some days later. */
  async function inDays(days: number): Promise<Database> {
    const say = (text: string) => server.database.query((db) => db.execute(sql.raw(text)));
    await say("create schema clock");
    await say(`create function clock.now() returns timestamptz language sql stable
      as $$ select pg_catalog.now() + interval '${days} days' $$`);
    await say("alter role current_user set search_path = clock, pg_catalog, public");
    const later = await Database.connect(server.url, { maxConnections: 1 });
    await say("alter role current_user reset search_path");
    return later;
  }

  test("is not told of while it fails anyhow", async () => {
    await expiring(2, "failing");
    expect(await told()).toEqual([`failing ${secret.id}`]);
  });
});

test("of many schedulers at once each piece of news is told by one, to each webhook once", async () => {
  const webhookId = crypto.randomUUID();
  const sealed = {
    keyId: "k",
    wrappedDataKey: new Uint8Array(1),
    nonce: new Uint8Array(1),
    ciphertext: new Uint8Array(1),
  };
  await server.database.query((db) =>
    db.insert(webhooks).values({ id: webhookId, workspaceId, host: "h", ...sealed }),
  );
  const secrets = await Promise.all(
    Array.from({ length: 30 }, () => insertSecret(server.database, workspaceId)),
  );
  await Promise.all(secrets.map((one) => one.fares({ state: "failing" })));
  const others = await Promise.all([1, 2, 3].map(() => Database.connect(server.url)));
  const raised = await Promise.all(others.map((database) => new AlertStore(database).raise()));
  const ids = raised.flatMap(({ told }) => told.map(({ secretId }) => secretId));
  expect(ids.sort()).toEqual(secrets.map(({ id }) => id).sort());
  const deliveries = await server.database.query((db) => db.select().from(webhookDeliveries));
  expect(deliveries.filter((one) => one.webhookId === webhookId)).toHaveLength(30);
  await Promise.all(others.map((database) => database.close()));
});

test("an alert that cannot be given to a webhook is not told either", async () => {
  await server.database.query((db) =>
    db.execute(sql`alter table webhook_deliveries add constraint broken check (false) not valid`),
  );
  const sealed = {
    keyId: "k",
    wrappedDataKey: new Uint8Array(1),
    nonce: new Uint8Array(1),
    ciphertext: new Uint8Array(1),
  };
  const row = { id: crypto.randomUUID(), workspaceId, host: "h", ...sealed };
  await server.database.query((db) => db.insert(webhooks).values(row));
  await failing();
  expect(await told()).toEqual([]);
  await server.database.query((db) => db.execute(sql`alter table webhook_deliveries drop constraint broken`));
  expect(await store.list(workspaceId, 10)).toEqual([]);
  expect(await told()).toEqual([`failing ${secret.id}`]);
});

test("old news goes, but a failure that has not ended stays, so that its end is told", async () => {
  await failing();
  await told();
  const other = await insertSecret(server.database, workspaceId);
  await other.fares({ expiresAt: daysAhead(2) });
  await told();
  await server.database.query((db) =>
    db.execute(sql`update alerts set created_at = now() - interval '100 days'`),
  );
  await store.prune();
  expect((await store.list(workspaceId, 10)).map(({ kind }) => kind)).toEqual(["failing"]);
  await secret.fares({});
  expect(await told()).toContain(`recovered ${secret.id}`);
});

test("a workspace is told of its own secrets only, the latest first", async () => {
  await failing();
  await told();
  await secret.fares({});
  await told();
  expect((await store.list(workspaceId, 10)).map(({ kind }) => kind)).toEqual(["recovered", "failing"]);
  expect(await store.list(workspaceId, 1)).toHaveLength(1);
  expect(await store.list(await insertWorkspace(server.database), 10)).toEqual([]);
});

test("among ten thousand secrets what is due is found", async () => {
  await server.database.query((db) =>
    db.execute(sql`with made as (
        insert into secrets (id, workspace_id, name, registry, credential_type, principal, current_version)
        select gen_random_uuid(), ${workspaceId}::uuid, 'many-' || n, 'ghcr.io', 'basic', 'p', 1 from generate_series(1, 10000) n
        returning id, workspace_id)
      insert into secret_health (secret_id, workspace_id, version, state) select id, workspace_id, 1, 'ok' from made`),
  );
  await server.database.query((db) => db.execute(sql`analyze`));
  await failing();
  expect(await told()).toEqual([`failing ${secret.id}`]);
});
