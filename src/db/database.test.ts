import { afterAll, beforeAll, expect, test } from "bun:test";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { inspect } from "node:util";
import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/postgres-js";
import postgres from "postgres";
import { Database, notify } from "./database.ts";
import { DbError, toDbError } from "./error.ts";
import { migrations } from "./migrations.ts";
import { startTestPostgres, type TestPostgres } from "./postgres.test-kit.ts";
import { workspaces } from "./schema.ts";

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
}, 60_000);
afterAll(() => server.end(), 60_000);

const row = (name: string) => ({
  id: crypto.randomUUID(),
  name,
  wrappedKey: Uint8Array.of(0, 1, 255),
  keyId: "k",
});

async function failureOf(work: Promise<unknown>): Promise<DbError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(DbError);
  return error as DbError;
}

async function emptyDatabase(name: string): Promise<string> {
  await server.database.query((db) => db.execute(sql.raw(`create database ${name}`)));
  return server.url.replace("/postgres?", `/${name}?`);
}

test("gives bytes and instants back as they went in", async () => {
  const { database } = server;
  await database.query((db) => db.insert(workspaces).values(row("bytes")));
  const [read] = await database.query((db) =>
    db.select().from(workspaces).where(eq(workspaces.name, "bytes")),
  );
  expect([...(read?.wrappedKey ?? [])]).toEqual([0, 1, 255]);
  expect(Math.abs(Date.now() - (read?.createdAt.getTime() ?? 0))).toBeLessThan(60_000);
});

test("migrates once when several start at the same time", async () => {
  const url = await emptyDatabase("several");
  const starters = await Promise.all([1, 2, 3, 4].map(() => Database.connect(url, { maxConnections: 2 })));
  try {
    await Promise.all(starters.map((starter) => starter.migrate()));
    const applied = await starters[0]?.query((db) =>
      db.execute<{ n: number }>(sql`select count(*)::int as n from drizzle.__drizzle_migrations`),
    );
    expect(applied?.[0]?.n).toBe(migrations().length);
  } finally {
    await Promise.all(starters.map((starter) => starter.close()));
  }
});

test("refuses a database that a newer version has migrated", async () => {
  const database = await Database.connect(await emptyDatabase("newer"));
  try {
    await database.migrate();
    await database.query((db) =>
      db.execute(
        sql`insert into drizzle.__drizzle_migrations (hash, created_at) values ('x', 99999999999999)`,
      ),
    );
    expect((await failureOf(database.migrate())).message).toContain("newer version");
  } finally {
    await database.close();
  }
});

test("errors carry neither statements nor what was bound to them", async () => {
  const canary = "canary-9f31c2";
  const { database } = server;
  await database.query((db) => db.insert(workspaces).values(row(canary)));
  const conflict = await failureOf(database.query((db) => db.insert(workspaces).values(row(canary))));
  expect([conflict.code, conflict.constraint]).toEqual(["conflict", "workspaces_name_unique"]);
  const cast = await failureOf(database.query((db) => db.execute(sql`select ${canary}::int`)));
  expect(cast.code).toBe("internal");
  const missing = await failureOf(
    database.transaction((tx) => tx.execute(sql.raw(`select '${canary}' from nowhere`))),
  );
  expect([missing.code, missing.sqlState]).toEqual(["internal", "42P01"]);
  for (const error of [conflict, cast, missing]) {
    expect(
      inspect(error, { depth: 10, showHidden: true }) + JSON.stringify(error) + error.stack,
    ).not.toContain(canary);
  }
});

test("does not keep the parameters that Drizzle puts into its own errors", async () => {
  const client = postgres(server.url.split("?")[0] as string, {
    path: `${decodeURIComponent(server.url.split("host=")[1] as string)}/.s.PGSQL.5432`,
    max: 1,
  });
  try {
    const thrown = await drizzle(client)
      .execute(sql`select ${"canary-77"}::int`)
      .then(undefined, (error: unknown) => error);
    expect(inspect(thrown)).toContain("canary-77");
    expect(inspect(toDbError(thrown), { depth: 10 })).not.toContain("canary-77");
  } finally {
    await client.end();
  }
});

test("a server that is not there is unavailable, and so is a URL that cannot be read", async () => {
  const refused = await failureOf(Database.connect("postgres://user:canary-pw@127.0.0.1:1/x"));
  expect(refused.code).toBe("unavailable");
  const nowhere = await failureOf(Database.connect("postgres://user@localhost/x?host=/nonexistent"));
  expect(nowhere.code).toBe("unavailable");
  const bad = await failureOf(Database.connect("not a url canary-pw"));
  expect(bad.code).toBe("unavailable");
  expect(inspect([refused, bad], { depth: 10 })).not.toContain("canary-pw");
});

test("a transaction that lost against a deadlock is repeated", async () => {
  const { database } = server;
  const [a, b] = [row("deadlock-a"), row("deadlock-b")];
  await database.query((db) => db.insert(workspaces).values([a, b]));
  const met = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let runs = 0;
  const touch = (index: number, first: string, second: string) =>
    database.transaction(async (tx) => {
      runs += 1;
      await tx.update(workspaces).set({ keyId: first }).where(eq(workspaces.id, first));
      met[index]?.resolve();
      await met[1 - index]?.promise;
      await tx.update(workspaces).set({ keyId: first }).where(eq(workspaces.id, second));
    });
  await Promise.all([touch(0, a.id, b.id), touch(1, b.id, a.id)]);
  expect(runs).toBeGreaterThanOrEqual(3);
});

test("a transaction that throws leaves nothing, and an error of ours passes as it is", async () => {
  const ours = new DbError("conflict", "ours");
  const failed = await failureOf(
    server.database.transaction(async (tx) => {
      await tx.insert(workspaces).values(row("rolled-back"));
      throw ours;
    }),
  );
  expect(failed).toBe(ours);
  const left = await server.database.query((db) =>
    db.select().from(workspaces).where(eq(workspaces.name, "rolled-back")),
  );
  expect(left).toEqual([]);
});

test("listeners hear what was committed, and are told to look again when their connection broke", async () => {
  const { database } = server;
  const heard: string[] = [];
  let next = Promise.withResolvers<void>();
  let connected = Promise.withResolvers<void>();
  const subscription = await database.listen(
    "container_changed",
    (payload) => {
      heard.push(payload);
      next.resolve();
    },
    () => connected.resolve(),
  );
  await connected.promise;
  await database
    .transaction(async (tx) => {
      await notify(tx, "container_changed", "never");
      throw new DbError("conflict", "rolled back");
    })
    .catch(() => undefined);
  await database.transaction((tx) => notify(tx, "container_changed", "first"));
  await next.promise;

  [next, connected] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  await database.query((db) =>
    db.execute(sql`select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'listen%'`),
  );
  await connected.promise;
  await database.query((db) => notify(db, "container_changed", "second"));
  await next.promise;
  expect(heard).toEqual(["first", "second"]);
  await subscription.end();
});

test("listeners hear again soon after the server is there again, however long it was away", async () => {
  const socket = `${new URL(server.url).searchParams.get("host")}/.s.PGSQL.5432`;
  let away = false;
  let refused = 0;
  const open = new Set<Socket>();
  let enough = Promise.withResolvers<void>();
  const link = createServer((from) => {
    if (away) {
      refused += 1;
      if (refused === 10) enough.resolve();
      from.resetAndDestroy();
      return;
    }
    const to = connect(socket);
    for (const end of [from, to]) open.add(end.on("error", () => undefined));
    from.pipe(to).pipe(from);
  });
  await new Promise<void>((resolve) => link.listen(0, "127.0.0.1", resolve));
  const { port } = link.address() as AddressInfo;
  const distant = await Database.connect(`postgres://oci_node@127.0.0.1:${port}/postgres`);
  try {
    const heard = Promise.withResolvers<string>();
    let connected = Promise.withResolvers<void>();
    await distant.listen("container_changed", heard.resolve, () => connected.resolve());
    await connected.promise;
    [connected, enough, away] = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), true];
    for (const end of open) end.destroy();
    await enough.promise;
    away = false;
    await connected.promise;
    await server.database.query((db) => notify(db, "container_changed", "after"));
    expect(await heard.promise).toBe("after");
  } finally {
    await distant.close();
    link.close();
  }
}, 20_000);
