import { afterAll, beforeAll, expect, test } from "bun:test";
import type { HandlerContext } from "@connectrpc/connect";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { containers } from "../db/schema.ts";
import { KeyFile } from "./kek.ts";
import { singleKey } from "./keyring.ts";
import { TokenStore } from "./token-store.ts";
import { workspaceService } from "./workspace-service.ts";
import { WorkspaceStore } from "./workspace-store.ts";

let server: TestPostgres;
let workspaces: WorkspaceStore;
let tokens: TokenStore;

beforeAll(async () => {
  server = await startTestPostgres();
  const key = await KeyFile.open(`${server.dataPath}/../key`, { create: true });
  workspaces = new WorkspaceStore(server.database, singleKey(key));
  tokens = new TokenStore(server.database);
}, 60_000);
afterAll(() => server.end(), 60_000);

const context = { signal: new AbortController().signal } as HandlerContext;

function service(stopContainers: (workspaceId: string) => Promise<void>) {
  const { deleteWorkspace } = workspaceService({
    workspaces,
    tokens,
    wasRemoved: async () => false,
    stopContainers,
    forget: async () => {},
  });
  return async (name: string) =>
    await deleteWorkspace({ $typeName: "oci_node.v1.DeleteWorkspaceRequest", name, force: true }, context);
}

async function begin(workspaceId: string): Promise<void> {
  const row = { id: `c-${crypto.randomUUID()}`, workspaceId, imageId: "i", reference: "r", spec: {} };
  await server.database.query((db) => db.insert(containers).values({ ...row, state: "running" }));
}

const end = () => server.database.query((db) => db.update(containers).set({ state: "stopped" }));

test("by force, nothing is begun any more once containers are stopped: the tokens are revoked first", async () => {
  const { id } = await workspaces.create("forced");
  const { token } = await tokens.create({ workspaceId: id, role: "owner", name: "t" });
  await begin(id);
  let counted: unknown = "not asked";
  await service(async () => {
    counted = await tokens.verify(token);
    await end();
  })("forced");
  expect(counted).toBeUndefined();
  expect(await workspaces.find("forced")).toBeUndefined();
});

test("what was let in just before is stopped, too; what never ends keeps the workspace", async () => {
  const { id } = await workspaces.create("late");
  let stops = 0;
  await begin(id);
  await service(async (workspaceId) => {
    stops += 1;
    await end();
    if (stops === 1) await begin(workspaceId);
  })("late");
  expect(stops).toBe(2);
  const { id: other } = await workspaces.create("endless");
  await begin(other);
  await expect(service(async () => {})("endless")).rejects.toMatchObject({ code: "in_use" });
  expect((await workspaces.get(other)).name).toBe("endless");
});
