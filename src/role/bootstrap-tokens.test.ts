import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeConfig } from "../config.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { TokenStore } from "../secret/token-store.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { bootstrapTokens } from "./bootstrap-tokens.ts";

let server: TestPostgres;
let dir: string;
let tokens: TokenStore;
let workspaces: WorkspaceStore;

beforeAll(async () => {
  server = await startTestPostgres();
  dir = await mkdtemp(join(tmpdir(), "oci-node-bootstrap-"));
  tokens = new TokenStore(server.database);
  const key = await KeyFile.open(join(dir, "key"), { create: true });
  workspaces = new WorkspaceStore(server.database, singleKey(key));
}, 60_000);
afterAll(async () => {
  await server.end();
  await rm(dir, { recursive: true, force: true });
}, 60_000);

const start = (node: string) =>
  bootstrapTokens(makeConfig({ data_dir: join(dir, node) }), { tokens, workspaces });
const roleOf = async (token: string) => (await tokens.verify(token))?.role;

test("a start gives out an owner's token anew and keeps the administrator's in a file of root's", async () => {
  const first = await start("a");
  const path = join(dir, "a", "admin-token");
  expect((await readFile(path, "utf8")).trim()).toBe(first.admin);
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  const second = await start("a");
  expect(second.admin).toBe(first.admin);
  expect(second.owner).not.toBe(first.owner);
  expect(await roleOf(first.owner)).toBeUndefined();
  expect([await roleOf(second.owner), await roleOf(second.admin)]).toEqual(["owner", "admin"]);
  expect(await tokens.list("all")).toHaveLength(2);
});

test("gateways on one database leave each other's tokens alone", async () => {
  const [a, b] = [await start("a"), await start("b")];
  for (const { owner, admin } of [a, b])
    expect([await roleOf(owner), await roleOf(admin)]).toEqual(["owner", "admin"]);
});

test("a file that holds no token of an administrator that counts is made anew, and the one before counts no more", async () => {
  const before = await start("c");
  const viewer = await tokens.create({
    workspaceId: (await workspaces.ensure("default")).id,
    role: "viewer",
    name: "v",
  });
  let last = before.admin;
  for (const damage of ["", "nonsense\n", `${viewer.token}\n`]) {
    await writeFile(join(dir, "c", "admin-token"), damage);
    const { admin } = await start("c");
    expect(await roleOf(admin)).toBe("admin");
    expect(await roleOf(last)).toBeUndefined();
    last = admin;
  }
  const kept = await tokens.verify(last);
  await tokens.revoke(kept?.tokenId ?? "");
  expect((await start("c")).admin).not.toBe(last);
});
