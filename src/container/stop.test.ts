import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { EmbeddedPostgres } from "../db/embedded.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { waitForExit } from "../native/process.ts";
import { type Server, serve } from "../rpc/server.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { ContainerChanges } from "./changes.ts";
import type { Container } from "./container.ts";
import { defaultOptions } from "./options.ts";
import type { ContainerState } from "./state.ts";
import { type StopDependencies, stopContainer, stopContainersOf } from "./stop.ts";
import { ContainerStore } from "./store.ts";
import { looksAt } from "./watch.ts";
import { type WorkerBoot, WorkerClients } from "./worker-client.ts";

let postgres: TestPostgres;
let restarted: EmbeddedPostgres | undefined;
let containers: ContainerStore;
let workspaceId: string;
let imageId: string;
let controlPlane: TlsIdentity;
let worker: Server;
let boot: WorkerBoot | undefined;
/** What the worker does when it is told to stop a container. */
let told: (id: string) => Promise<void>;
let dependencies: StopDependencies;

const never = new Promise<never>(() => undefined);
const signal = () => AbortSignal.timeout(30_000);

beforeAll(async () => {
  postgres = await startTestPostgres();
  containers = new ContainerStore(postgres.database);
  const cluster = await TestCluster.make();
  controlPlane = await cluster.controlPlane();
  worker = await serve({
    host: "127.0.0.1",
    port: 0,
    tls: { identity: await cluster.worker("w1"), clients: "required" },
    interceptors: [],
    routes: (router) => {
      router.service(WorkerService, {
        async stopContainer({ containerId }) {
          await told(containerId);
          return {};
        },
      });
    },
  });
}, 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(postgres.database);
  imageId = await insertImage(postgres.database, workspaceId);
  boot = { id: "w1", address: worker.url, bootNonce: "first" };
  // Nobody announces anything: messages are lost.
  dependencies = {
    containers,
    changes: new ContainerChanges({ lookAgainMs: 20 }),
    workers: new WorkerClients(() => controlPlane),
    findWorker: async () => boot,
    patienceMs: 10_000,
  };
});
afterAll(async () => {
  await worker.close();
  await postgres.end();
  await restarted?.stop();
}, 60_000);

async function containerIn(...states: ContainerState[]): Promise<Container> {
  const made = await containers.create({
    workspaceId,
    imageId,
    reference: "r.test/a:1",
    command: [],
    env: {},
    network: "none",
    options: defaultOptions,
    eager: false,
    cpuMillis: 0,
    memoryBytes: 0,
  });
  for (const state of states)
    await containers.transition(
      made.id,
      {},
      state,
      state === "scheduled" ? { workerId: "w1", leaseMs: 1 } : {},
    );
  return await containers.get(workspaceId, made.id);
}

const running = () => containerIn("scheduled", "preparing", "running");
const end = (id: string, state: ContainerState) => containers.transition(id, {}, state, {});
const stop = (container: Container) => stopContainer(dependencies, container, 100, signal());

describe("a stop", () => {
  test("ends with its container though nobody is told of that", async () => {
    told = async (id) => void (await end(id, "stopped"));
    expect((await stop(await running())).state).toBe("stopped");
  });

  test("of a container that waits, or was handed over and not heard of since, needs no worker", async () => {
    boot = undefined;
    for (const states of [[], ["scheduled"]] as const) {
      const { state, reason } = await stop(await containerIn(...states));
      expect([state, reason]).toEqual(["stopped", expect.stringMatching(/^stopped before it/)]);
    }
  });

  test("tells a worker again that did not know the container yet", async () => {
    const container = await running();
    let times = 0;
    told = async (id) => {
      times += 1;
      if (times === 3) await end(id, "stopped");
    };
    expect((await stop(container)).state).toBe("stopped");
    expect(times).toBe(3);
  });

  test("ends when its worker is given up while it says nothing", async () => {
    const asked = Promise.withResolvers<void>();
    told = () => {
      asked.resolve();
      return never;
    };
    const container = await running();
    const stopping = stop(container);
    await asked.promise;
    await end(container.id, "failed");
    expect((await stopping).state).toBe("failed");
  });

  test("reaches the worker that is away when it has registered again", async () => {
    told = async (id) => void (await end(id, "stopped"));
    boot = { id: "w1", address: "https://127.0.0.1:1", bootNonce: "before" };
    const tried = Promise.withResolvers<void>();
    let looks = 0;
    dependencies = {
      ...dependencies,
      findWorker: async () => {
        looks += 1;
        if (looks === 3) tried.resolve();
        return boot;
      },
    };
    const stopping = stop(await running());
    await tried.promise;
    boot = { id: "w1", address: worker.url, bootNonce: "again" };
    expect((await stopping).state).toBe("stopped");
  });

  test("of a worker that stays away says so, and what then", async () => {
    boot = { id: "w1", address: "https://127.0.0.1:1", bootNonce: "before" };
    dependencies = { ...dependencies, patienceMs: 100 };
    const container = await running();
    expect(await failureOf(stop(container))).toMatchObject({
      code: "worker_away",
      message: `stopping ${container.id}: worker w1 does not answer`,
      next: expect.stringContaining("oci-node worker revoke"),
    });
    await expect(stopContainersOf(dependencies, workspaceId, signal())).rejects.toThrow("does not answer");
  });

  test.each([
    ["answers", async () => undefined],
    ["says nothing", () => never],
  ])("whose worker %s, and reports no end, does not wait for ever", async (_, does) => {
    told = does;
    dependencies = { ...dependencies, patienceMs: 100 };
    expect(await failureOf(stop(await running()))).toMatchObject({
      code: "worker_away",
      message: expect.stringContaining("could not report that"),
      next: expect.stringContaining("scheduler"),
    });
  });

  test("is left by its caller at once", async () => {
    const leaving = new AbortController();
    told = async () => leaving.abort();
    const left = stopContainer(dependencies, await running(), 100, leaving.signal);
    expect(await failureOf(left)).toMatchObject({ name: "AbortError" });
  });

  test("outlasts a restart of the database", async () => {
    const asked = Promise.withResolvers<void>();
    told = async () => asked.resolve();
    dependencies = { ...dependencies, patienceMs: 30_000 };
    const container = await running();
    const stopping = stop(container);
    await asked.promise;
    const [pid] = (await readFile(join(postgres.dataPath, "postmaster.pid"), "utf8")).split("\n", 1);
    process.kill(Number(pid), "SIGINT");
    await waitForExit(Number(pid));
    restarted = await EmbeddedPostgres.start({
      dataDir: postgres.dataPath.replace(/\/postgres\/data$/, ""),
      durable: false,
      signal: signal(),
    });
    while (
      !(await end(container.id, "stopped").then(
        () => true,
        () => false,
      ))
    );
    expect((await stopping).state).toBe("stopped");
  }, 40_000);
});

test("a watch sees what nobody told it of, and does not repeat what is as it was", async () => {
  const container = await running();
  const seen: string[] = [];
  let unchanged = 0;
  for await (const { container: now, changed } of looksAt(dependencies, container, signal())) {
    if (changed) seen.push(now.state);
    else unchanged += 1;
    if (unchanged === 3) await end(container.id, "exited");
    if (now.state === "exited") break;
  }
  expect(seen).toEqual(["running", "exited"]);
});

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
}
