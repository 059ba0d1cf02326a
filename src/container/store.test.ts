import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import type { NewContainer } from "./container.ts";
import { ContainerError, type ContainerErrorCode } from "./error.ts";
import { defaultOptions } from "./options.ts";
import type { ContainerState } from "./state.ts";
import { ContainerStore } from "./store.ts";

let server: TestPostgres;
let store: ContainerStore;
let workspaceId: string;
let imageId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  store = new ContainerStore(server.database);
}, 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(server.database);
  imageId = await insertImage(server.database, workspaceId);
});
afterAll(() => server.end(), 60_000);

const wanted = (change: Partial<NewContainer> = {}): NewContainer => ({
  workspaceId,
  imageId,
  reference: "ghcr.io/o/r:1",
  command: ["python3", "-c", "print('ä')"],
  env: { A: "1" },
  network: "none",
  options: defaultOptions,
  eager: false,
  cpuMillis: 500,
  memoryBytes: 5 * 1024 ** 3,
  ...change,
});

async function refused(code: ContainerErrorCode, work: Promise<unknown>): Promise<void> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ContainerError);
  expect((error as ContainerError).code).toBe(code);
}

async function runningContainer() {
  const { id } = await store.create(wanted());
  for (const state of ["scheduled", "preparing", "running"] as const) {
    await store.transition(id, {}, state, state === "scheduled" ? { workerId: "w1", leaseMs: 1000 } : {});
  }
  return id;
}

test("queues a container as it was wanted", async () => {
  const made = await store.create(wanted());
  expect(made).toMatchObject({ ...wanted(), state: "pending", attempt: 1, oomKilled: false });
  expect(made.id).toMatch(/^c-[0-9a-f]{16}$/);
  expect(made.phases["pending"]).toBeDate();
  expect([made.workerId, made.exitCode, made.transfer]).toEqual([undefined, undefined, undefined]);
  expect(await store.get(workspaceId, made.id)).toEqual(made);
  expect((await store.events(made.id)).map((event) => event.message)).toEqual(["pending"]);
});

test("refuses an image that is not the workspace's or not ready, and a command with NUL", async () => {
  const other = await insertWorkspace(server.database);
  await refused("image_not_found", store.create(wanted({ imageId: "img-none" })));
  await refused("image_not_found", store.create(wanted({ workspaceId: other })));
  const building = await insertImage(server.database, workspaceId, { status: "building" });
  await refused("image_not_ready", store.create(wanted({ imageId: building })));
  await refused("bad_spec", store.create(wanted({ command: ["a\0b"] })));
  await refused("bad_spec", store.create(wanted({ env: { A: "\0" } })));
});

test("a workspace sees its own containers only, the living ones unless all are wanted", async () => {
  const [one, two] = [await store.create(wanted()), await store.create(wanted())];
  await store.transition(one.id, {}, "stopped");
  expect((await store.list(workspaceId)).map((each) => each.id)).toEqual([two.id]);
  expect((await store.list(workspaceId, { all: true })).map((each) => each.id).sort()).toEqual(
    [one.id, two.id].sort(),
  );
  const other = await insertWorkspace(server.database);
  expect(await store.list(other, { all: true })).toEqual([]);
  await refused("not_found", store.get(other, one.id));
  await refused("not_found", store.get(workspaceId, "c-none"));
});

test("keeps the latest of events that come again and again, and all of its states", async () => {
  const id = await runningContainer();
  const before = (await store.events(id)).length;
  const events = Array.from({ length: 205 }, (_, at) => ({ kind: "restart", message: `restart ${at}` }));
  await store.observe(id, {}, { events });
  const kept = await store.events(id);
  const restarts = kept.filter(({ kind }) => kind === "restart").map(({ message }) => message);
  expect(restarts).toEqual(events.slice(-200).map(({ message }) => message));
  expect(kept).toHaveLength(before + 200);
});

test("goes from pending to exited with events, phases, times and what the step brings", async () => {
  const id = await runningContainer();
  const at = new Date("2026-01-02T03:04:05.678Z");
  const { container, changed } = await store.transition(
    id,
    { from: ["running"], attempt: 1, workerId: "w1" },
    "exited",
    {
      at,
      exitCode: 137,
      signal: "SIGKILL",
      oomKilled: true,
      reason: "out of memory",
    },
  );
  expect(changed).toBe(true);
  expect(container).toMatchObject({ state: "exited", exitCode: 137, signal: "SIGKILL", oomKilled: true });
  expect(container).toMatchObject({
    reason: "out of memory",
    finishedAt: at,
    workerId: "w1",
    leaseUntil: undefined,
  });
  expect(container.startedAt).toBeDate();
  expect(Object.keys(container.phases).sort()).toEqual([
    "exited",
    "pending",
    "preparing",
    "running",
    "scheduled",
  ]);
  expect(container.phases["exited"]).toEqual(at);
  const events = await store.events(id);
  expect(events.map((event) => event.message)).toEqual([
    "pending",
    "pending → scheduled",
    "scheduled → preparing",
    "preparing → running",
    "running → exited: out of memory",
  ]);
  expect(events[1]?.fields).toEqual({ from: "pending", to: "scheduled", attempt: "1", worker: "w1" });
  expect((await store.events(id, events[3]?.id)).map((event) => event.id)).toEqual([events[4]?.id ?? 0]);
});

test("a repeated step changes nothing and is no error", async () => {
  const id = await runningContainer();
  const step = { at: new Date("2026-01-01T00:00:00Z"), exitCode: 3, events: [] };
  await store.transition(id, { attempt: 1 }, "exited", step);
  const again = await store.transition(id, { attempt: 1, from: ["running"] }, "exited", {
    ...step,
    exitCode: 4,
  });
  expect([again.changed, again.container.exitCode]).toEqual([false, 3]);
  expect(await store.events(id)).toHaveLength(5);
});

test("refuses a step that is not legal, from another state than expected, or of another attempt or worker", async () => {
  const id = await runningContainer();
  await refused("illegal_transition", store.transition(id, {}, "preparing"));
  await refused("conflict", store.transition(id, { from: ["pending", "scheduled"] }, "failed"));
  await refused("stale_attempt", store.transition(id, { attempt: 2 }, "exited"));
  await refused("stale_attempt", store.transition(id, { workerId: "w2" }, "exited"));
  await refused(
    "stale_attempt",
    store.observe(id, { attempt: 2 }, { events: [{ kind: "x", message: "late" }] }),
  );
  await refused("not_found", store.transition("c-none", {}, "failed"));
  expect(await store.events(id)).toHaveLength(4);
});

test("back in the queue the attempt counts up and the worker, its phases and its lease are forgotten", async () => {
  const { id } = await store.create(wanted());
  await store.transition(id, {}, "scheduled", { workerId: "w1", leaseMs: 60_000 });
  await store.observe(id, {}, { phases: { "image ready": new Date() } });
  const { container } = await store.transition(id, { attempt: 1 }, "pending", {
    reason: "its worker was lost",
  });
  expect(container).toMatchObject({
    state: "pending",
    attempt: 2,
    workerId: undefined,
    leaseUntil: undefined,
  });
  expect(container.phases).toEqual({});
  await refused("stale_attempt", store.transition(id, { attempt: 1 }, "failed"));
});

test("of steps at the same time one wins and the others see it", async () => {
  const id = await runningContainer();
  const ends: ContainerState[] = ["exited", "failed", "stopped"];
  const results = await Promise.allSettled(ends.map((to) => store.transition(id, { attempt: 1 }, to)));
  expect(results.filter((each) => each.status === "fulfilled")).toHaveLength(1);
  const { container } = await Promise.any(
    results.map((each) =>
      each.status === "fulfilled" ? Promise.resolve(each.value) : Promise.reject(each.reason),
    ),
  );
  expect((await store.find(id))?.state).toBe(container.state);
  expect((await store.events(id)).filter((event) => event.message.startsWith("running →"))).toHaveLength(1);
});

test("keeps the first time of a phase, the latest transfer, and a repeated event once", async () => {
  const id = await runningContainer();
  const [early, late] = [new Date("2026-01-01T00:00:00Z"), new Date("2026-01-01T00:00:09Z")];
  const transfer = {
    fetchedBytes: 2 ** 40,
    requests: 2,
    compressedBytes: 3,
    spansPresent: 4,
    spansTotal: 5,
    complete: false,
  };
  const event = { at: early, kind: "mount", message: "mounted\0", fields: { image: "ghcr.io/o/r" } };
  await store.observe(id, {}, { phases: { mounted: early }, events: [event], transfer });
  const seen = await store.observe(
    id,
    {},
    {
      phases: { mounted: late, "first output": late },
      events: [event, { ...event, message: "another" }],
      transfer: { ...transfer, complete: true },
    },
  );
  expect(seen.phases).toMatchObject({ mounted: early, "first output": late });
  expect(seen.transfer).toEqual({ ...transfer, complete: true });
  const mounts = (await store.events(id)).filter((each) => each.kind === "mount");
  expect(mounts.map((each) => each.message)).toEqual(["mounted�", "another"]);
  expect(mounts[0]?.fields).toEqual({ image: "ghcr.io/o/r" });
});

test("tells watchers of every change, after it is committed", async () => {
  const changes: string[] = [];
  const started = Promise.withResolvers<void>();
  let waiter = Promise.withResolvers<void>();
  const subscription = await store.subscribe((id, workspace) => {
    changes.push(`${workspace} ${id}`);
    waiter.resolve();
  }, started.resolve);
  await started.promise;
  try {
    const { id } = await store.create(wanted());
    await waiter.promise;
    waiter = Promise.withResolvers();
    await store.transition(id, {}, "stopped");
    await waiter.promise;
    expect(changes).toEqual([`${workspaceId} ${id}`, `${workspaceId} ${id}`]);
  } finally {
    await subscription.end();
  }
});
