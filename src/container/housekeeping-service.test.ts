import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertWorkspace } from "../db/rows.test-kit.ts";
import { volumes as rows } from "../db/schema-endpoint.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { type Server, serve } from "../rpc/server.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { ContainerError } from "./error.ts";
import { removeOutput, removeVolume } from "./housekeeping-service.ts";
import { VolumeStore } from "./volume-store.ts";
import { type WorkerBoot, WorkerClients } from "./worker-client.ts";

let postgres: TestPostgres;
let volumes: VolumeStore;
let controlPlane: TlsIdentity;
let server: Server;
let workspaceId: string;
/** Where the worker is found. */
let boot: WorkerBoot | undefined;
let gone: boolean;
let asked: string[];
/** What the worker says. */
let answer: () => void;

beforeAll(async () => {
  postgres = await startTestPostgres();
  volumes = new VolumeStore(postgres.database);
  const cluster = await TestCluster.make();
  controlPlane = await cluster.controlPlane();
  server = await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { identity: await cluster.worker("w1"), clients: "required" },
    interceptors: [],
    routes: (router) => {
      router.service(WorkerService, {
        async removeVolume({ workspaceId: workspace, name }) {
          asked.push(`${workspace} ${name}`);
          answer();
          return {};
        },
        async removeContainer({ containerId }) {
          asked.push(containerId);
          answer();
          return {};
        },
      });
    },
  });
}, 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(postgres.database);
  await postgres.database.query((db) =>
    db.insert(rows).values({ workspaceId, name: "data", workerId: "w1" }),
  );
  boot = { id: "w1", address: server.url, bootNonce: "first" };
  gone = false;
  asked = [];
  answer = () => undefined;
});
afterAll(async () => {
  await server.close();
  await postgres.end();
}, 60_000);

const dependencies = () => ({
  volumes,
  workers: new WorkerClients(() => controlPlane),
  findWorker: async () => boot,
  isGone: async () => gone,
});
const remove = () =>
  removeVolume(dependencies(), workspaceId, "data", AbortSignal.timeout(30_000)).then(
    () => "ok",
    (error: unknown) => (error instanceof ContainerError ? error.code : String(error)),
  );
const left = async () => (await volumes.list(workspaceId)).map(({ name }) => name);

test("a volume goes from its worker first, and is kept where that cannot be", async () => {
  answer = () => {
    throw new ConnectError("a container uses it", Code.FailedPrecondition);
  };
  expect([await remove(), await left()]).toEqual(["volume_in_use", ["data"]]);
  boot = { id: "w1", address: "https://127.0.0.1:1", bootNonce: "away" };
  expect([await remove(), await left()]).toEqual(["worker_away", ["data"]]);
  boot = { id: "w1", address: server.url, bootNonce: "first" };
  answer = () => undefined;
  expect([await remove(), await left()]).toEqual(["ok", []]);
  expect(asked).toEqual([`${workspaceId} data`, `${workspaceId} data`]);
  expect(await remove()).toBe("volume_not_found");
});

test("what a worker had that counts no more is forgotten without asking it", async () => {
  gone = true;
  expect([await remove(), await left(), asked]).toEqual(["ok", [], []]);
});

test("a worker that is away, or was never known, keeps no removal of a container", async () => {
  await removeOutput(dependencies(), { id: "c-1", workerId: "w1" });
  boot = { id: "w1", address: "https://127.0.0.1:1", bootNonce: "away" };
  await removeOutput(dependencies(), { id: "c-2", workerId: "w1" });
  boot = undefined;
  await removeOutput(dependencies(), { id: "c-3", workerId: "w1" });
  await removeOutput(dependencies(), { id: "c-4", workerId: undefined });
  expect(asked).toEqual(["c-1"]);
});
