import { afterAll, beforeAll, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eq } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { whileHeld } from "../db/rows.test-kit.ts";
import { tokens } from "../db/schema.ts";
import { SecretError } from "./error.ts";
import { KeyFile } from "./kek.ts";
import { singleKey } from "./keyring.ts";
import { TokenStore } from "./token-store.ts";
import { WorkspaceStore } from "./workspace-store.ts";

let server: TestPostgres;
let store: TokenStore;
let workspaceId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  store = new TokenStore(server.database);
  const keyPath = join(tmpdir(), `oci-node-token-${process.pid}-${Date.now()}`);
  const kek = await KeyFile.open(keyPath, { create: true });
  await rm(keyPath);
  workspaceId = (await new WorkspaceStore(server.database, singleKey(kek)).ensure("tokens")).id;
}, 60_000);
afterAll(() => server.end(), 60_000);

test("a token speaks for its workspace and role; the database has its hash only", async () => {
  const made = await store.create({ workspaceId, role: "developer", name: "laptop" });
  expect(await store.verify(made.token)).toEqual({
    tokenId: made.tokenId,
    name: "laptop",
    workspaceId,
    role: "developer",
  });
  const rows = await server.database.query((db) => db.select().from(tokens));
  expect(JSON.stringify(rows)).not.toContain(made.token.slice(4));
  expect(rows[0]?.sha256).toHaveLength(32);
});

test("an unknown, expired, revoked or misshapen token speaks for nobody", async () => {
  const past = new Date(Date.now() - 1000);
  const expired = await store.create({ workspaceId, role: "viewer", name: "old", expiresAt: past });
  const future = new Date(Date.now() + 60_000);
  const valid = await store.create({ workspaceId, role: "viewer", name: "new", expiresAt: future });
  expect(await store.verify(expired.token)).toBeUndefined();
  expect((await store.verify(valid.token))?.role).toBe("viewer");
  const almost = valid.token.slice(0, -1) + (valid.token.endsWith("A") ? "B" : "A");
  for (const other of [
    "",
    "ocn_",
    almost,
    `${valid.token} `,
    valid.token.toUpperCase(),
    "ocn_'; drop table tokens",
  ]) {
    expect(await store.verify(other)).toBeUndefined();
  }
  await store.revoke(valid.tokenId);
  await store.revoke(valid.tokenId);
  expect(await store.verify(valid.token)).toBeUndefined();
  const listed = (await store.list({ workspaceId })).find((each) => each.tokenId === valid.tokenId);
  expect(listed?.revokedAt).toBeDate();
  await expect(store.revoke(crypto.randomUUID())).rejects.toBeInstanceOf(SecretError);
});

test("tokens of the cluster have no workspace, and all others have one", async () => {
  const worker = await store.create({ role: "worker", name: "join" });
  expect(await store.verify(worker.token)).toEqual({
    tokenId: worker.tokenId,
    name: "join",
    workspaceId: undefined,
    role: "worker",
  });
  expect((await store.list("cluster")).map((each) => each.tokenId)).toContain(worker.tokenId);
  for (const wrong of [{ role: "owner" } as const, { role: "admin", workspaceId } as const]) {
    await expect(store.create({ ...wrong, name: "wrong" })).rejects.toBeInstanceOf(SecretError);
  }
});

test("a use is noted to the minute, not again in that minute, and never as before the token was made", async () => {
  const { token, tokenId } = await store.create({ workspaceId, role: "viewer", name: "used" });
  expect((await store.get(tokenId)).lastUsedAt).toBeUndefined();
  await store.verify(token);
  const { lastUsedAt: noted, createdAt } = await store.get(tokenId);
  expect(noted).toEqual(createdAt);
  const mark = new Date(Date.now() - 30_000);
  const write = (lastUsedAt: Date) =>
    server.database.query((db) => db.update(tokens).set({ lastUsedAt }).where(eq(tokens.id, tokenId)));
  await write(mark);
  await store.verify(token);
  expect((await store.get(tokenId)).lastUsedAt).toEqual(mark);
  await server.database.query((db) =>
    db
      .update(tokens)
      .set({ createdAt: new Date(0) })
      .where(eq(tokens.id, tokenId)),
  );
  await write(new Date(Date.now() - 3_600_000));
  await store.verify(token);
  const later = (await store.get(tokenId)).lastUsedAt;
  expect(later?.getSeconds()).toBe(0);
  expect(later?.getTime()).toBeGreaterThan(Date.now() - 120_000);
});

test("the last token of an administrator stays unless forced, also against two who revoke each other", async () => {
  const admin = (name: string) => store.create({ role: "admin", name });
  const [first, last] = [await admin("first"), await admin("last")];
  await store.create({ role: "admin", name: "ended", expiresAt: new Date(0) });
  const revokedAt = new Date();
  const meanwhile = await whileHeld(
    server.database,
    (tx) => tx.update(tokens).set({ revokedAt }).where(eq(tokens.id, first.tokenId)),
    () => store.revoke(last.tokenId, { keepAdmin: true }),
  );
  expect(meanwhile).toMatchObject({ status: "rejected", reason: { code: "in_use" } });
  expect((await store.verify(last.token))?.role).toBe("admin");
  // What works no more, or is of another role, keeps nobody in.
  await store.revoke(first.tokenId, { keepAdmin: true });
  await store.revoke(last.tokenId);
  await store.revoke(last.tokenId, { keepAdmin: true });
  expect(await store.verify(last.token)).toBeUndefined();
});

test("all tokens of a workspace are revoked, or those of one name removed, and nobody else's", async () => {
  const make = (name: string) => store.create({ workspaceId, role: "viewer", name });
  const [one, two] = [await make("one"), await make("two")];
  const cluster = await store.create({ role: "worker", name: "one" });
  await store.removeNamed({ workspaceId }, "one");
  const works = async () =>
    await Promise.all(
      [one, two, cluster].map(async ({ token }) => (await store.verify(token)) !== undefined),
    );
  expect(await works()).toEqual([false, true, true]);
  await store.revokeAll(workspaceId);
  expect(await works()).toEqual([false, false, true]);
});

test("an id that is none is a token that there is not", async () => {
  for (const id of ["", "nonsense", "'; drop table tokens", "\0"]) {
    await expect(store.get(id)).rejects.toMatchObject({ code: "not_found" });
    await expect(store.revoke(id)).rejects.toMatchObject({ code: "not_found" });
  }
});
