import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { Container } from "../container/container.ts";
import { ContainerError } from "../container/error.ts";
import { defaultOptions } from "../container/options.ts";
import { ContainerStore } from "../container/store.ts";
import { VolumeStore } from "../container/volume-store.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { placedVolumes } from "./placed-volumes.ts";
import { SchedulerStore } from "./store.ts";
import { registeringWorker, undemandingContainer } from "./worker-rows.test-kit.ts";

let server: TestPostgres;
let store: SchedulerStore;
let containers: ContainerStore;
let volumes: VolumeStore;
let workspaceId: string;
let imageId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  store = new SchedulerStore(server.database);
  containers = new ContainerStore(server.database);
  volumes = new VolumeStore(server.database);
  for (const id of ["w1", "w2"]) await store.register(registeringWorker(id));
}, 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(server.database);
  imageId = await insertImage(server.database, workspaceId);
});
afterAll(() => server.end(), 60_000);

const queue = (...names: string[]): Promise<Container> =>
  containers.create({
    ...undemandingContainer(workspaceId, imageId),
    options: {
      ...defaultOptions,
      volumes: [...names, "/etc"].map((source, at) => ({ source, target: `/v${at}`, readOnly: false })),
    },
  });
const place = (container: Container, workerId: string) => store.place(container, workerId, 60_000);
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "ok",
    (error: unknown) => (error instanceof ContainerError ? error.code : "another error"),
  );

test("a volume is the worker's where it is used first, and a container that uses it is placed nowhere else", async () => {
  const [one, two] = [await queue("data"), await queue("data", "more")];
  expect(await place(one, "w1")).toBeDefined();
  expect(await place(two, "w2")).toBeUndefined();
  expect(await placedVolumes(store, two, await store.workers())).toEqual([
    { name: "data", workerId: "w1", worker: "there" },
  ]);
  expect(await place(two, "w1")).toBeDefined();
  const list = await volumes.list(workspaceId);
  expect(list.map(({ name, workerId, containerIds }) => [name, workerId, containerIds])).toEqual([
    ["data", "w1", [one.id, two.id]],
    ["more", "w1", [two.id]],
  ]);
  const other = await insertWorkspace(server.database);
  expect(await volumes.list(other)).toEqual([]);
});

test("of two workers that get a new volume at once, one has it", async () => {
  const both = await Promise.all([1, 2, 3, 4].map(() => queue("b", "a")));
  const placed = await Promise.all(both.map((container, at) => place(container, at % 2 === 0 ? "w1" : "w2")));
  const [a, b] = await volumes.list(workspaceId);
  expect(a?.workerId).toBe(b?.workerId ?? "");
  expect(placed.filter((each) => each !== undefined).map((each) => each?.container.workerId)).toEqual([
    a?.workerId,
    a?.workerId,
  ]);
});

test("a volume is removed when no container uses it, and stays when one was placed with it meanwhile", async () => {
  const container = await queue("data");
  expect(await codeOf(volumes.unused(workspaceId, "data"))).toBe("volume_not_found");
  await place(container, "w1");
  expect(await codeOf(volumes.unused(workspaceId, "data"))).toBe("volume_in_use");
  await volumes.forget(workspaceId, "data");
  expect(await volumes.list(workspaceId)).toHaveLength(1);
  await containers.transition(container.id, {}, "failed");
  const waiting = await queue("data");
  expect(await codeOf(volumes.unused(workspaceId, "data"))).toBe("volume_in_use");
  await containers.transition(waiting.id, {}, "stopped");
  expect(await volumes.unused(workspaceId, "data")).toMatchObject({ workerId: "w1" });
  await volumes.forget(workspaceId, "data");
  expect(await volumes.list(workspaceId)).toEqual([]);
  expect(await codeOf(volumes.unused(workspaceId, "/etc"))).toBe("volume_not_found");
});

test("a volume of a worker that was revoked, or is known no more, is gone", async () => {
  const container = await queue("data");
  await place(container, "w2");
  for (const workers of [[], [{ id: "w2", state: "revoked" as const }]])
    expect((await placedVolumes(store, container, workers))[0]?.worker).toBe("gone");
  expect((await placedVolumes(store, container, [{ id: "w2", state: "lost" }]))[0]?.worker).toBe("there");
});
