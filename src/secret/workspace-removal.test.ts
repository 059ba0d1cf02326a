import { afterAll, beforeAll, expect, test } from "bun:test";
import { eq, sql } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, whileHeld } from "../db/rows.test-kit.ts";
import { containers, imageLayers, images, layers, secrets, workspaces } from "../db/schema.ts";
import { volumes } from "../db/schema-endpoint.ts";
import { auditEvents } from "../db/schema-health.ts";
import { Redacted } from "../std/redacted.ts";
import { SecretError } from "./error.ts";
import { KeyFile } from "./kek.ts";
import { singleKey } from "./keyring.ts";
import { SecretStore } from "./store.ts";
import { TokenStore } from "./token-store.ts";
import { Vault } from "./vault.ts";
import { WorkspaceStore } from "./workspace-store.ts";

let server: TestPostgres;
let store: WorkspaceStore;
let vault: Vault;
let tokens: TokenStore;

beforeAll(async () => {
  server = await startTestPostgres();
  store = new WorkspaceStore(
    server.database,
    singleKey(await KeyFile.open(`${server.dataPath}/../key`, { create: true })),
  );
  vault = new Vault({ store: new SecretStore(server.database), workspaces: store });
  tokens = new TokenStore(server.database);
}, 60_000);
afterAll(() => server.end(), 60_000);

async function insertContainer(workspaceId: string, state: string, imageId = "img-x"): Promise<string> {
  const id = `c-${crypto.randomUUID().slice(0, 8)}`;
  const row = { id, workspaceId, imageId, reference: "r", state, spec: {} };
  await server.database.query((db) => db.insert(containers).values(row));
  return id;
}

async function insertLayer(imageId: string, digest: string): Promise<void> {
  const sizes = { sizeBytes: 1, tarSizeBytes: 1, blobSizeBytes: 1, entries: 1, spanSizeBytes: 1 };
  const row = { digest, mediaType: "m", spanSha256: "s", ...sizes };
  await server.database.query(async (db) => {
    await db.insert(layers).values(row).onConflictDoNothing();
    await db.insert(imageLayers).values({ imageId, position: 0, digest });
  });
}

const codeOf = async (work: Promise<unknown>): Promise<string | undefined> => {
  const thrown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  return thrown instanceof SecretError ? thrown.code : undefined;
};

test("a workspace is made once, under a name that is one", async () => {
  const made = await store.create("once");
  expect(await store.find("once")).toEqual(made);
  expect(await codeOf(store.create("once"))).toBe("exists");
  for (const name of ["", "Upper", "-dash", "a b", "a/b", "a\0b", "ä", "a".repeat(64)]) {
    expect(await codeOf(store.create(name))).toBe("bad_name");
  }
  expect((await store.create(`0${"a._-".repeat(15)}`)).name).toHaveLength(61);
});

test("of several that make one name at once a single one makes it", async () => {
  const attempts = await Promise.allSettled(Array.from({ length: 8 }, () => store.create("raced")));
  expect(attempts.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
});

test("what is in a workspace is counted, and of another nothing", async () => {
  const { id } = await store.create("counted");
  await store.create("counted-not");
  await vault.create({ workspaceId: id, name: "s", value: new Redacted("v") });
  await insertImage(server.database, id);
  for (const state of ["running", "exited", "pending"]) await insertContainer(id, state);
  await tokens.create({ workspaceId: id, role: "viewer", name: "works" });
  const ended = { workspaceId: id, role: "viewer", name: "ended", expiresAt: new Date(0) } as const;
  await tokens.create(ended);
  expect(await store.summaries(id)).toEqual([
    { ...(await store.get(id)), secrets: 1, images: 1, containers: 2, tokens: 1 },
  ]);
  const empty = (await store.summaries()).find(({ name }) => name === "counted-not");
  expect(empty).toMatchObject({ secrets: 0, images: 0, containers: 0, tokens: 0 });
});

test("a workspace whose containers live stays, and they are named", async () => {
  const { id } = await store.create("busy");
  const living = await insertContainer(id, "running");
  const { token } = await tokens.create({ workspaceId: id, role: "owner", name: "t" });
  const thrown = await store.remove("busy").catch((error: unknown) => error);
  expect((thrown as SecretError).code).toBe("in_use");
  expect((thrown as SecretError).message).toContain(living);
  expect((await tokens.verify(token))?.workspaceId).toBe(id);
});

test("a removed workspace takes everything with it but what others share and what the audit says", async () => {
  const { id } = await store.create("going");
  const other = await store.create("staying");
  await vault.create({ workspaceId: id, name: "s", value: new Redacted("v") });
  const own = await insertImage(server.database, id);
  const shared = await insertImage(server.database, other.id);
  await server.database.query(async (db) => {
    await db.update(images).set({ manifestDigest: "sha256:own" }).where(eq(images.id, own));
  });
  await insertLayer(own, "sha256:own-layer");
  await insertLayer(shared, "sha256:shared-layer");
  await server.database.query((db) =>
    db.insert(imageLayers).values({ imageId: own, position: 1, digest: "sha256:shared-layer" }),
  );
  await insertContainer(id, "exited", own);
  const { token } = await tokens.create({ workspaceId: id, role: "owner", name: "t" });
  const event = { actorKind: "token", actorId: "t", actorName: "t", action: "secret.create" };
  await server.database.query((db) =>
    db.insert(auditEvents).values({ ...event, targetKind: "secret", outcome: "ok", workspaceId: id }),
  );

  const volume = { name: "data", workerId: "w1" };
  await server.database.query((db) => db.insert(volumes).values({ workspaceId: id, ...volume }));

  const removed = await store.remove("going");
  expect(removed.volumes).toEqual([volume]);
  expect(removed).toMatchObject({ id, name: "going", secrets: 1, images: 1, tokens: 1 });
  expect(removed.unusedManifests).toEqual(["sha256:own"]);
  expect(await tokens.verify(token)).toBeUndefined();
  const left = await server.database.query(async (db) => ({
    workspaces: await db.$count(workspaces, eq(workspaces.id, id)),
    secrets: await db.$count(secrets, eq(secrets.workspaceId, id)),
    images: await db.$count(images, eq(images.workspaceId, id)),
    containers: await db.$count(containers, eq(containers.workspaceId, id)),
    layers: (await db.select({ digest: layers.digest }).from(layers)).map(({ digest }) => digest),
    audit: await db.$count(auditEvents, eq(auditEvents.workspaceId, id)),
  }));
  expect(left).toEqual({
    workspaces: 0,
    secrets: 0,
    images: 0,
    containers: 0,
    layers: ["sha256:shared-layer"],
    audit: 1,
  });
  expect(await codeOf(store.remove("going"))).toBe("not_found");
});

test("a workspace with nothing but a volume is not empty", async () => {
  const { id } = await store.create("kept");
  await server.database.query((db) =>
    db.insert(volumes).values({ workspaceId: id, name: "data", workerId: "w1" }),
  );
  await expect(store.remove("kept", { onlyEmpty: true })).rejects.toThrow(
    "workspace kept is not empty: secrets: 0, images: 0, volumes: 1",
  );
});

test("nothing of a removed workspace is left in any table that has a workspace", async () => {
  const { id } = await store.create("swept");
  await tokens.create({ workspaceId: id, role: "owner", name: "t" });
  await vault.create({ workspaceId: id, name: "s", value: new Redacted("v") });
  await insertContainer(id, "exited", await insertImage(server.database, id));
  await store.remove("swept");
  const tables = await server.database.query((db) =>
    db.execute<{ name: string }>(sql`
      select table_name as name from information_schema.columns
      where table_schema = 'public' and column_name = 'workspace_id'`),
  );
  const names = tables.map(({ name }) => name).filter((name) => name !== "audit_events");
  expect(names.length).toBeGreaterThanOrEqual(8);
  for (const name of names) {
    const rows = await server.database.query((db) =>
      db.execute(sql`select 1 from ${sql.identifier(name)} where workspace_id = ${id}`),
    );
    expect([name, rows.length]).toEqual([name, 0]);
  }
});

test("a workspace of a name that was removed is another one, with another key", async () => {
  const before = await store.create("again");
  await vault.create({ workspaceId: before.id, name: "s", value: new Redacted("v") });
  const { token } = await tokens.create({ workspaceId: before.id, role: "owner", name: "t" });
  const key = Buffer.from(await store.key(before.id));
  await store.remove("again");
  const after = await store.create("again");
  expect(after.id).not.toBe(before.id);
  expect(Buffer.from(await store.key(after.id)).equals(key)).toBe(false);
  expect(await vault.list(after.id)).toEqual([]);
  expect(await tokens.verify(token)).toBeUndefined();
});

test("a container that is queued while its workspace is to go keeps it", async () => {
  const { id } = await store.create("queued-meanwhile");
  const row = {
    id: "c-meanwhile",
    workspaceId: id,
    imageId: "i",
    reference: "r",
    state: "pending",
    spec: {},
  };
  const removed = await whileHeld(
    server.database,
    (tx) => tx.insert(containers).values(row),
    () => store.remove("queued-meanwhile"),
  );
  expect(removed).toMatchObject({ status: "rejected", reason: { code: "in_use" } });
  expect((await store.get(id)).id).toBe(id);
});
