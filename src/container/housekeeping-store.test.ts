import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { ContainerChanges } from "./changes.ts";
import type { NewContainer } from "./container.ts";
import { ContainerError } from "./error.ts";
import { eventsOf } from "./event-stream.ts";
import { findContainer } from "./find.ts";
import { HousekeepingStore, type NamedEvent } from "./housekeeping-store.ts";
import { defaultOptions } from "./options.ts";
import { ContainerStore } from "./store.ts";

let server: TestPostgres;
let store: ContainerStore;
let housekeeping: HousekeepingStore;
let workspaceId: string;
let imageId: string;

beforeAll(async () => {
  server = await startTestPostgres();
  store = new ContainerStore(server.database);
  housekeeping = new HousekeepingStore(server.database);
}, 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(server.database);
  imageId = await insertImage(server.database, workspaceId);
});
afterAll(() => server.end(), 60_000);

const create = (change: Partial<NewContainer> = {}) =>
  store.create({
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
    ...change,
  });

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => "ok",
    (error: unknown) => {
      if (error instanceof ContainerError) return `${error.code}: ${error.message}. ${error.next}`;
      throw error;
    },
  );
}

test("a name is one container's of the workspace, whoever asks for it at the same time, until that is removed", async () => {
  const tries = await Promise.all([1, 2, 3, 4].map(() => codeOf(create({ name: "web" }))));
  const web = await findContainer(store, workspaceId, "web");
  expect(tries.filter((told) => told === "ok")).toHaveLength(1);
  for (const told of tries.filter((each) => each !== "ok"))
    expect(told).toBe(
      `name_taken: container ${web.id}, which is pending, has the name web already. Choose another name, or remove that one: oci-node rm web`,
    );
  await Promise.all([create(), create()]);
  const other = await insertWorkspace(server.database);
  expect(await codeOf(findContainer(store, other, "web"))).toBe(
    "not_found: no container web. List them with `oci-node ps --all`.",
  );
  await store.transition(web.id, {}, "stopped");
  await housekeeping.remove(web.id);
  expect((await create({ name: "web" })).name).toBe("web");
});

test("a container is found by its id, its name, and what no other id begins with", async () => {
  const web = await create({ name: "web" });
  const named = await create({ name: web.id.slice(0, 8) });
  expect((await findContainer(store, workspaceId, web.id)).id).toBe(web.id);
  expect((await findContainer(store, workspaceId, "web")).id).toBe(web.id);
  expect((await findContainer(store, workspaceId, web.id.slice(0, 12))).id).toBe(web.id);
  expect((await findContainer(store, workspaceId, web.id.slice(0, 8))).id).toBe(named.id);
  expect(await codeOf(findContainer(store, workspaceId, "c-"))).toContain("no container c-");
});

test("removes what has ended, with its events, and nothing that lives", async () => {
  const { id } = await create();
  expect(await codeOf(housekeeping.remove(id))).toStartWith(`still_running: container ${id} is pending`);
  await store.transition(id, {}, "scheduled", { workerId: "w1" });
  await store.transition(id, {}, "failed");
  expect(await housekeeping.remove(id)).toEqual({ id, workerId: "w1" });
  expect(await store.find(id)).toBeUndefined();
  expect(await store.events(id)).toEqual([]);
  expect(await codeOf(housekeeping.remove(id))).toStartWith("not_found");
  const living = await create();
  expect(await housekeeping.unknown([living.id, id])).toEqual([id]);
});

test("forgets the ended containers of a deployment but for the last ones", async () => {
  const ids: string[] = [];
  for (let at = 0; at < 5; at += 1) {
    const { id } = await create({ deploymentId: "d1" });
    const ended = { at: new Date(Date.UTC(2026, 0, 1 + at)) };
    if (at < 4) await store.transition(id, {}, "stopped", ended);
    ids.push(id);
  }
  const other = await create({ deploymentId: "d2" });
  await store.transition(other.id, {}, "stopped");
  const gone = await housekeeping.forgetEnded("d1", 2);
  expect(gone.map(({ id }) => id).sort()).toEqual(ids.slice(0, 2).sort());
  const left = await store.list(workspaceId, { all: true });
  expect(left.map(({ id }) => id).sort()).toEqual([...ids.slice(2), other.id].sort());
});

/** The events as they come; `more` resolves when there are so many. */
function follow(options: { containerId?: string; follow: boolean; since?: Date }) {
  const changes = new ContainerChanges({ lookAgainMs: 60_000 });
  const stop = new AbortController();
  const seen: NamedEvent[] = [];
  let waiter = Promise.withResolvers<void>();
  const ended = (async () => {
    const dependencies = { containers: store, changes, housekeeping };
    for await (const event of eventsOf(dependencies, { workspaceId, ...options }, stop.signal)) {
      seen.push(event);
      waiter.resolve();
    }
  })();
  const more = async (count: number) => {
    while (seen.length < count) {
      waiter = Promise.withResolvers();
      await waiter.promise;
    }
  };
  return { changes, seen, ended, more, stop: () => stop.abort() };
}

const said = (events: readonly NamedEvent[]) =>
  events.map(({ containerName = "-", message }) => `${containerName}: ${message}`);

test("tells the events of a workspace, of one container, and since a time", async () => {
  const web = await create({ name: "web" });
  const other = await create();
  await store.transition(web.id, {}, "stopped");
  const all = follow({ follow: false });
  await all.ended;
  expect(said(all.seen)).toEqual(["web: pending", "-: pending", "web: pending → stopped"]);
  const one = follow({ follow: false, containerId: other.id });
  await one.ended;
  expect(said(one.seen)).toEqual(["-: pending"]);
  const since = follow({ follow: false, since: new Date(Date.now() + 60_000) });
  await since.ended;
  expect(since.seen).toEqual([]);
});

test("goes on with what happens, also of new containers, each event once, and after messages were lost", async () => {
  const web = await create({ name: "web" });
  const events = follow({ follow: true });
  await events.more(1);
  await store.transition(web.id, {}, "scheduled", { workerId: "w1" });
  const late = await create({ name: "late" });
  events.changes.announce(web.id, workspaceId);
  events.changes.announce(late.id, workspaceId);
  await events.more(3);
  await store.transition(web.id, {}, "preparing");
  events.changes.announce(undefined);
  await events.more(4);
  expect(said(events.seen)).toEqual([
    "web: pending",
    "web: pending → scheduled",
    "late: pending",
    "web: scheduled → preparing",
  ]);
  events.stop();
  await events.ended;
});

test("what is told of one container ends with it", async () => {
  const web = await create({ name: "web" });
  await create();
  const events = follow({ follow: true, containerId: web.id });
  await events.more(1);
  await store.transition(web.id, {}, "stopped");
  events.changes.announce(web.id, workspaceId);
  await events.ended;
  expect(said(events.seen)).toEqual(["web: pending", "web: pending → stopped"]);
});
