import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import type { HandlerContext } from "@connectrpc/connect";
import { sql } from "drizzle-orm";
import { WorkerIdentityStore } from "../cluster/identity-store.ts";
import type { ContainerState } from "../container/state.ts";
import { ContainerStore } from "../container/store.ts";
import { transitionIn } from "../container/transition-store.ts";
import { toWireState } from "../container/wire-service.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { workers } from "../db/schema.ts";
import { workerIdentities } from "../db/schema-cluster.ts";
import {
  ReportContainerRequestSchema,
  type RevokeWorkerResponse,
} from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { clusterService } from "./cluster-service.ts";
import { type SchedulerServiceDependencies, schedulerService } from "./service.ts";
import { SchedulerStore } from "./store.ts";
import { joiningWorker, registeringWorker, undemandingContainer } from "./worker-rows.test-kit.ts";

let server: TestPostgres;
let store: SchedulerStore;
let identities: WorkerIdentityStore;
let containers: ContainerStore;
let workspaceId: string;
let imageId: string;

beforeAll(async () => {
  server = await startTestPostgres();
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

const join = (workerId: string, name: string) => identities.join(joiningWorker(workerId, name));
const register = (id: string, name: string) => store.register(registeringWorker(id, name));
const queue = () => containers.create(undemandingContainer(workspaceId, imageId));
const revoke = async (worker: string) =>
  (await clusterService(store, containers).revokeWorker(
    { worker } as never,
    {} as HandlerContext,
  )) as RevokeWorkerResponse;

test("what a revoked worker ran has failed, what was only scheduled there is queued again, and it is placed on no more", async () => {
  await join("w1", "one");
  await register("w1", "one");
  const [running, scheduled, waiting] = [await queue(), await queue(), await queue()];
  for (const each of [running, scheduled]) await store.place(each, "w1", 60_000);
  await containers.transition(running.id, { attempt: 1 }, "preparing");
  await containers.transition(running.id, { attempt: 1 }, "running");
  const { worker, containerIds } = await revoke("one");
  expect([worker?.id, worker?.state]).toEqual(["w1", "revoked"]);
  expect([...containerIds].sort()).toEqual([running.id, scheduled.id].sort());
  expect(await containers.find(running.id)).toMatchObject({
    state: "failed",
    reason: "worker one was revoked",
  });
  expect(await containers.find(scheduled.id)).toMatchObject({ state: "pending", workerId: undefined });
  expect(await store.place(waiting, "w1", 60_000)).toBeUndefined();
  expect(await store.takes("w1", "boot")).toBe(false);
});

test("what a worker reported in the very moment of its revocation has failed, too", async () => {
  await join("w1", "one");
  await register("w1", "one");
  const container = await queue();
  await store.place(container, "w1", 60_000);
  const { database } = server;
  const reported = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  // The report was let in, and is not committed before the revocation has seen the container as it was.
  const reporting = database.transaction(async (tx) => {
    await transitionIn(tx, container.id, { attempt: 1, workerId: "w1" }, "preparing", {});
    begun.resolve();
    await reported.promise;
  });
  await begun.promise;
  const revoking = revoke("one");
  const waiting = sql`select 1 from pg_stat_activity where wait_event_type = 'Lock'`;
  while ((await database.query((db) => db.execute(waiting))).length === 0);
  reported.resolve();
  await reporting;
  expect((await revoking).containerIds).toEqual([container.id]);
  expect(await containers.find(container.id)).toMatchObject({
    state: "failed",
    reason: "worker one was revoked",
  });
});

test("a worker that begins what was stopped before it was heard of there is refused, and what ends late is not", async () => {
  await register("w1", "one");
  const container = await queue();
  await store.place(container, "w1", 60_000);
  await containers.transition(container.id, { attempt: 1 }, "stopped");
  const service = schedulerService({ store, containers } as SchedulerServiceDependencies);
  const report = (state: ContainerState) =>
    service.reportContainer(
      create(ReportContainerRequestSchema, {
        workerId: "w1",
        bootNonce: "boot",
        containerId: container.id,
        attempt: 1,
        state: toWireState(state),
        at: timestampNow(),
      }),
      {} as HandlerContext,
    );
  await expect(report("preparing")).rejects.toMatchObject({ code: "illegal_transition" });
  await expect(report("running")).rejects.toMatchObject({ code: "illegal_transition" });
  expect(await report("exited")).toEqual({});
  expect((await containers.find(container.id))?.state).toBe("stopped");
});

test("a revoked worker does not come back by registering, beating, joining or renewing, and stays so when it falls silent", async () => {
  await join("w1", "one");
  await register("w1", "one");
  await revoke("w1");
  await expect(register("w1", "one")).rejects.toMatchObject({ code: "revoked" });
  await expect(join("w1", "one")).rejects.toMatchObject({ code: "revoked" });
  const certificate = { workerId: "w1", certificateSerial: "2", certificateNotAfter: new Date() };
  await expect(identities.renew(certificate, "key of w1")).rejects.toMatchObject({ code: "revoked" });
  expect(await store.heartbeat("w1", "boot", { cpuMillis: 0, memoryBytes: 0, requestVersion: 1 })).toBe(
    false,
  );
  await server.database.query((db) => db.update(workers).set({ lastHeartbeatAt: new Date(0) }));
  expect(await store.markLost(1)).toEqual([]);
  expect((await store.worker("w1"))?.state).toBe("revoked");
  // Again: no error, nothing new.
  expect((await revoke("w1")).containerIds).toEqual([]);
});

test("of many that register while they are revoked, none is ready afterwards", async () => {
  const ids = Array.from({ length: 20 }, (_, at) => `w${at}`);
  for (const id of ids) await join(id, `name of ${id}`);
  await Promise.all(ids.flatMap((id) => [register(id, id).catch(() => undefined), store.revoke(id)]));
  expect((await store.workers()).filter(({ state }) => state === "ready")).toEqual([]);
});

test("a worker is named by its id or its name; a name that several have is refused with their ids", async () => {
  await join("w1", "twin");
  await join("w2", "twin");
  await expect(revoke("twin")).rejects.toThrow(/several workers are called twin: w[12], w[12]/);
  await expect(revoke("nobody")).rejects.toMatchObject({ code: "unknown_worker" });
  expect((await revoke("w1")).worker?.id).toBe("w1");
  // The one that is left needs no id any more; it never registered.
  expect((await revoke("twin")).worker).toMatchObject({ id: "w2", name: "twin", state: "revoked" });
});

test("nobody takes an id over with another key", async () => {
  await join("w1", "one");
  const other = { workerId: "w1", publicKeySha256: "another", name: "one", tokenId: crypto.randomUUID() };
  const certificate = { joinedFrom: "", certificateSerial: "2", certificateNotAfter: new Date() };
  await expect(identities.join({ ...other, ...certificate })).rejects.toMatchObject({ code: "not_joined" });
  await expect(identities.admit("w1", "another")).rejects.toMatchObject({ code: "not_joined" });
  await identities.admit("w1", "key of w1");
});

test("the workers are listed with the end of their certificates", async () => {
  await join("w1", "one");
  await register("w1", "one");
  expect((await store.worker("w1"))?.certificateNotAfter).toEqual(new Date("2030-01-01T00:00:00Z"));
});
