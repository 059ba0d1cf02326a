import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { eq, sql } from "drizzle-orm";
import type { Container } from "../container/container.ts";
import { defaultOptions } from "../container/options.ts";
import { ContainerStore } from "../container/store.ts";
import { Database } from "../db/database.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { containers, workers } from "../db/schema.ts";
import { SchedulerStore } from "./store.ts";
import type { NewWorker } from "./worker.ts";

let server: TestPostgres;
let store: SchedulerStore;
let containerStore: ContainerStore;
let workspaceId: string;
let imageId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  store = new SchedulerStore(server.database);
  containerStore = new ContainerStore(server.database);
  workspaceId = await insertWorkspace(server.database);
  imageId = await insertImage(server.database, workspaceId);
}, 60_000);
beforeEach(async () => {
  await server.database.query((db) => db.delete(containers));
  await server.database.query((db) => db.delete(workers));
});
afterAll(() => server.end(), 60_000);

const mi = 1024 * 1024;

interface Queued {
  readonly cpuMillis?: number;
  readonly memoryBytes?: number;
  readonly workspaceId?: string;
  readonly imageId?: string;
}

const queue = (change: Queued = {}) =>
  containerStore.create({
    workspaceId,
    imageId,
    reference: "r",
    command: [],
    env: {},
    network: "none",
    options: defaultOptions,
    eager: false,
    cpuMillis: 0,
    memoryBytes: 0,
    ...change,
  });

const worker = (id: string, change: Partial<NewWorker> = {}): NewWorker => ({
  id,
  name: `name of ${id}`,
  address: "http://127.0.0.1:40001",
  bootPublicKey: new Uint8Array(32).fill(7),
  bootNonce: "boot1",
  cpuMillis: 2000,
  memoryBytes: 1000 * mi,
  platform: "linux/amd64",
  version: "0.1.0",
  requestVersion: 1,
  ...change,
});

/** Lets a lease or a heartbeat be so much older, instead of waiting. */
const age = (change: { leaseMs?: number; heartbeatMs?: number }) =>
  server.database.query(async (db) => {
    const by = (ms = 0) => sql`${ms} * interval '1 millisecond'`;
    await db.update(containers).set({ leaseUntil: sql`lease_until - ${by(change.leaseMs)}` });
    await db.update(workers).set({ lastHeartbeatAt: sql`last_heartbeat_at - ${by(change.heartbeatMs)}` });
  });

const ids = (list: readonly Container[]) => list.map((each) => each.id);

test("claims the oldest first, once, until the lease is over", async () => {
  const [one, two, three] = [await queue(), await queue(), await queue()];
  const claimed = await store.claimPending(2, "s1", 60_000);
  expect(ids(claimed)).toEqual([one.id, two.id]);
  expect(claimed[0]).toMatchObject({ state: "pending", claimedBy: "s1" });
  expect(ids(await store.claimPending(10, "s2", 60_000))).toEqual([three.id]);
  expect(await store.claimPending(10, "s2", 60_000)).toEqual([]);
  await age({ leaseMs: 60_000 });
  expect(ids(await store.claimPending(10, "s2", 60_000))).toEqual([one.id, two.id, three.id]);
});

test("a workspace of which many wait keeps nobody else's from being claimed, each in its own order", async () => {
  const other = await insertWorkspace(server.database);
  const theirs = { workspaceId: other, imageId: await insertImage(server.database, other) };
  const many = await Promise.all(Array.from({ length: 20 }, () => queue()));
  const [one, two] = [await queue(theirs), await queue(theirs)];
  const claimed = ids(await store.claimPending(4, "s1", 60_000));
  expect(claimed.filter((id) => id === one.id || id === two.id)).toEqual([one.id, two.id]);
  expect(claimed.filter((id) => many.some((each) => each.id === id))).toHaveLength(2);
});

test("several schedulers at once never claim the same container, and leave none", async () => {
  const queued = await Promise.all(Array.from({ length: 60 }, () => queue()));
  const databases = await Promise.all(
    [1, 2, 3, 4].map(() => Database.connect(server.url, { maxConnections: 2 })),
  );
  try {
    const claimed: string[] = [];
    const drain = async (database: Database, name: string) => {
      const own = new SchedulerStore(database);
      // A round may find everything locked by others; what they hold they also take.
      for (let round = 0; round < 60 && claimed.length < queued.length; round += 1) {
        claimed.push(...ids(await own.claimPending(3, name, 60_000)));
      }
    };
    await Promise.all(databases.map((database, index) => drain(database, `s${index}`)));
    expect(claimed).toHaveLength(60);
    expect(new Set(claimed)).toEqual(new Set(ids(queued)));
  } finally {
    await Promise.all(databases.map((database) => database.close()));
  }
});

test("a released claim is free again when its time has come, and only its holder can release it", async () => {
  const { id } = await queue();
  await store.claimPending(1, "s1", 60_000);
  await store.releaseClaim(id, "s2", 0);
  expect(await store.claimPending(1, "s2", 60_000)).toEqual([]);
  await store.releaseClaim(id, "s1", 5_000);
  expect(await store.claimPending(1, "s2", 60_000)).toEqual([]);
  await age({ leaseMs: 5_000 });
  expect(ids(await store.claimPending(1, "s2", 60_000))).toEqual([id]);
});

test("a container that ended is not claimed", async () => {
  const { id } = await queue();
  await containerStore.transition(id, {}, "stopped");
  expect(await store.claimPending(1, "s1", 60_000)).toEqual([]);
});

test("places a container and takes up a hand-over that was not confirmed in time", async () => {
  await store.register(worker("w1"));
  const { id } = await queue();
  const [claimed] = await store.claimPending(1, "s1", 60_000);
  const placed = await store.place(claimed!, "w1", 1_000);
  expect(placed?.container).toMatchObject({ id, state: "scheduled", workerId: "w1", attempt: 1 });
  expect(ids(await store.containersOn("w1"))).toEqual([id]);
  expect(await store.claimUnconfirmed(1, "s2", 60_000)).toEqual([]);
  await age({ leaseMs: 1_000 });
  expect(ids(await store.claimUnconfirmed(1, "s2", 60_000))).toEqual([id]);
  expect(await store.claimUnconfirmed(1, "s1", 60_000)).toEqual([]);
  await containerStore.transition(id, { attempt: 1 }, "preparing");
  await age({ leaseMs: 120_000 });
  expect(await store.claimUnconfirmed(1, "s1", 60_000)).toEqual([]);
});

test("does not place on a worker that is lost, unknown or full", async () => {
  await store.register(worker("w1"));
  const container = await queue({ cpuMillis: 1500, memoryBytes: 10 * mi });
  expect(await store.place(container, "w2", 1_000)).toBeUndefined();
  expect((await store.place(container, "w1", 1_000))?.changed).toBe(true);
  expect(await store.place(await queue({ cpuMillis: 501 }), "w1", 1_000)).toBeUndefined();
  expect(await store.place(await queue({ memoryBytes: 991 * mi }), "w1", 1_000)).toBeUndefined();
  expect((await store.worker("w1"))?.containers).toBe(1);
  await containerStore.transition(container.id, {}, "failed");
  expect(
    (await store.place(await queue({ cpuMillis: 2000, memoryBytes: 1000 * mi }), "w1", 1_000))?.changed,
  ).toBe(true);
  await age({ heartbeatMs: 60_000 });
  await store.markLost(30_000);
  expect(await store.place(await queue(), "w1", 1_000)).toBeUndefined();
});

test("does not place what was stopped after it was claimed, and says nothing of that", async () => {
  await store.register(worker("w1"));
  await queue();
  const [claimed] = await store.claimPending(1, "s1", 60_000);
  if (claimed === undefined) throw new Error("nothing was claimed");
  await containerStore.transition(claimed.id, {}, "stopped");
  expect(await store.place(claimed, "w1", 1_000)).toBeUndefined();
  expect((await store.worker("w1"))?.containers).toBe(0);
});

test("two schedulers together never give a worker more than it has, and a container to one worker only", async () => {
  await store.register(worker("w1", { cpuMillis: 1000 }));
  await store.register(worker("w2", { cpuMillis: 1000 }));
  const list = await Promise.all(Array.from({ length: 8 }, () => queue({ cpuMillis: 400 })));
  const tries = list.flatMap((container) => ["w1", "w2"].map((id) => store.place(container, id, 60_000)));
  const results = await Promise.allSettled(tries);
  const placed = results.filter((each) => each.status === "fulfilled" && each.value !== undefined);
  expect(placed).toHaveLength(4);
  expect((await store.workers()).map((each) => [each.containers, each.cpuMillisPlaced])).toEqual([
    [2, 800],
    [2, 800],
  ]);
});

test("keeps what a worker says of itself, and a new boot replaces the old", async () => {
  const joined = worker("w1", { bootPublicKey: Uint8Array.from({ length: 32 }, (_, index) => index * 8) });
  await store.register(joined);
  const known = await store.worker("w1");
  expect({ ...known, bootPublicKey: [...(known?.bootPublicKey ?? [])] }).toMatchObject({
    ...joined,
    bootPublicKey: [...joined.bootPublicKey],
    state: "ready",
    containers: 0,
  });
  // The scheduler that it registered with may have known less of it than this one.
  const seen = { cpuMillis: 5, memoryBytes: 6, requestVersion: 2 };
  expect(await store.heartbeat("w1", "boot1", seen)).toBe(true);
  expect(await store.worker("w1")).toMatchObject({ cpuMillisUsed: 5, memoryBytesUsed: 6, requestVersion: 2 });
  await store.register(worker("w1", { bootNonce: "boot2", cpuMillis: 1 }));
  expect(await store.heartbeat("w1", "boot1", { cpuMillis: 0, memoryBytes: 0, requestVersion: 1 })).toBe(
    false,
  );
  expect(await store.heartbeat("w2", "boot1", { cpuMillis: 0, memoryBytes: 0, requestVersion: 1 })).toBe(
    false,
  );
  expect(await store.worker("w1")).toMatchObject({ bootNonce: "boot2", cpuMillis: 1 });
  expect(await store.workers()).toHaveLength(1);
  expect(await store.worker("w9")).toBeUndefined();
});

test("a silent worker is lost once, must register again, and is ready then", async () => {
  await store.register(worker("w1"));
  await store.register(worker("w2"));
  await age({ heartbeatMs: 20_000 });
  await store.heartbeat("w2", "boot1", { cpuMillis: 0, memoryBytes: 0, requestVersion: 1 });
  expect(await store.markLost(15_000)).toEqual(["w1"]);
  expect(await store.markLost(15_000)).toEqual([]);
  expect(await store.heartbeat("w1", "boot1", { cpuMillis: 0, memoryBytes: 0, requestVersion: 1 })).toBe(
    false,
  );
  expect((await store.workers()).map((each) => [each.id, each.state])).toEqual([
    ["w1", "lost"],
    ["w2", "ready"],
  ]);
  await store.register(worker("w1", { bootNonce: "boot2" }));
  expect((await store.worker("w1"))?.state).toBe("ready");
});

test("wakes the schedulers when a container is queued and when one comes back", async () => {
  let woken = Promise.withResolvers<void>();
  const subscription = await store.subscribePending(() => woken.resolve());
  try {
    await woken.promise;
    woken = Promise.withResolvers();
    const { id } = await queue();
    await woken.promise;
    await containerStore.transition(id, {}, "scheduled", { workerId: "w1" });
    woken = Promise.withResolvers();
    await containerStore.transition(id, {}, "pending");
    await woken.promise;
    const [row] = await server.database.query((db) =>
      db.select().from(containers).where(eq(containers.id, id)),
    );
    expect(row?.attempt).toBe(2);
  } finally {
    await subscription.end();
  }
});
