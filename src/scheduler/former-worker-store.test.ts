import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { WorkerIdentityStore } from "../cluster/identity-store.ts";
import { ContainerStore } from "../container/store.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { workers } from "../db/schema.ts";
import { workerIdentities } from "../db/schema-cluster.ts";
import { FormerWorkerStore } from "./former-worker-store.ts";
import { recoverSilentWorkers } from "./recovery.ts";
import { SchedulerStore } from "./store.ts";
import { joiningWorker, registeringWorker, undemandingContainer } from "./worker-rows.test-kit.ts";

let server: TestPostgres;
let former: FormerWorkerStore;
let store: SchedulerStore;
let identities: WorkerIdentityStore;
let containers: ContainerStore;
let workspaceId: string;
let imageId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  former = new FormerWorkerStore(server.database);
  store = new SchedulerStore(server.database);
  identities = new WorkerIdentityStore(server.database);
  containers = new ContainerStore(server.database);
  workspaceId = await insertWorkspace(server.database);
  imageId = await insertImage(server.database, workspaceId);
}, 60_000);
beforeEach(async () => {
  await server.database.query((db) => db.delete(workers));
  await server.database.query((db) => db.delete(workerIdentities));
});
afterAll(() => server.end());

const join = (workerId: string) => identities.join(joiningWorker(workerId));
/** A row of the workers; alone, one of an earlier version. */
const register = (id: string) => store.register(registeringWorker(id, id, "http://127.0.0.1:1"));
const placed = async (workerId: string, ...then: readonly ("preparing" | "running" | "exited")[]) => {
  const made = await containers.create(undemandingContainer(workspaceId, imageId));
  for (const state of ["scheduled", ...then] as const)
    await containers.transition(made.id, {}, state, { workerId });
  return made.id;
};
const workerOf = async (id: string) => (await containers.find(id))?.workerId;

test("what a silent worker of an earlier version had is given up by name, or queued again where it had not begun", async () => {
  await register("old");
  const [running, scheduled] = [await placed("old", "preparing", "running"), await placed("old")];
  await recoverSilentWorkers(store, containers, 30_000);
  // As long as an earlier scheduler beside this one hears from it.
  expect((await containers.find(running))?.state).toBe("running");
  await server.database.query((db) =>
    db.update(workers).set({ lastHeartbeatAt: sql`last_heartbeat_at - interval '31 seconds'` }),
  );
  await recoverSilentWorkers(store, containers, 30_000);
  const [failed, queued] = [await containers.find(running), await containers.find(scheduled)];
  expect([failed?.state, queued?.state]).toEqual(["failed", "pending"]);
  expect(failed?.reason).toStartWith("its worker old (old) was lost: it was of an earlier version");
});

test("a successor gets all containers of a former worker, ended ones too, and the former is forgotten", async () => {
  await register("old");
  await join("new");
  const running = await placed("old", "preparing", "running");
  const ended = await placed("old", "preparing", "running", "exited");
  expect(await former.succeed("old", "new")).toEqual([running]);
  expect([await workerOf(running), await workerOf(ended)]).toEqual(["new", "new"]);
  expect(await store.workers()).toEqual([]);
  expect(await former.succeed("old", "new")).toBeUndefined();
});

test("nobody succeeds a worker that has a key, and nobody who was revoked or never joined succeeds anybody", async () => {
  for (const id of ["victim", "revoked"]) await join(id);
  for (const id of ["victim", "revoked", "old"]) await register(id);
  await store.revoke("revoked");
  const its = await placed("victim", "preparing", "running");
  const old = await placed("old", "preparing", "running");
  await join("thief");
  expect(await former.succeed("victim", "thief")).toBeUndefined();
  expect(await former.succeed("old", "revoked")).toBeUndefined();
  expect(await former.succeed("old", "never joined")).toBeUndefined();
  expect([await workerOf(its), await workerOf(old)]).toEqual(["victim", "old"]);
});
