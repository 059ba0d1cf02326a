import { afterAll, beforeAll, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
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
