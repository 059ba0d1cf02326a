import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { eq, sql } from "drizzle-orm";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { workers } from "../db/schema.ts";
import { deploymentDemands } from "../db/schema-endpoint.ts";
import { registeringWorker } from "../scheduler/worker-rows.test-kit.ts";
import { EndpointScene } from "./endpoint.test-kit.ts";
import type { EndpointSpec, Route } from "./endpoint.ts";
import { type TestGateway, TestGateways } from "./gateways.test-kit.ts";

let postgres: TestPostgres;
let scene: EndpointScene;
let gateways: TestGateways;

beforeAll(async () => {
  postgres = await startTestPostgres();
  gateways = await TestGateways.start(postgres);
}, 60_000);
beforeEach(async () => {
  scene = await EndpointScene.make(postgres.database, gateways.worker.id, gateways.worker.address);
}, 60_000);
afterEach(() => gateways.settle(), 60_000);
afterAll(async () => {
  await gateways.end();
  await postgres.end();
}, 60_000);

const nothing = { queued: 0, inFlight: 0 };

async function until<T>(what: string, look: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const end = Date.now() + 20_000;
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) return seen;
    if (Date.now() > end) throw new Error(`not seen: ${what}`);
    await Bun.sleep(5);
  }
}

const find = (gateway: TestGateway, name: string) => gateway.routing.find(name, scene);

/** An endpoint with a container that answers, as a gateway finds it. */
async function active(
  gateway: TestGateway,
  name: string,
  change: Partial<EndpointSpec> = {},
): Promise<Route> {
  await scene.deploy(name, change);
  const [first = ""] = await scene.living(name);
  await scene.ready(first);
  return await until("a route with a target", async () => {
    const route = await find(gateway, name);
    return route?.targets.length === 1 ? route : undefined;
  });
}

/** Brings every container of an endpoint that waits to where it answers. */
async function readyAll(name: string): Promise<void> {
  for (const id of await scene.living(name))
    if ((await scene.containers.find(id))?.state === "pending") await scene.ready(id);
}

describe("a gateway", () => {
  test("finds a route by workspace id and name, and asks nothing for it a second time", async () => {
    const gateway = await gateways.begin();
    expect(await find(gateway, "a")).toBeUndefined();
    const route = await active(gateway, "a", { bodyBytesMax: 0 });
    const [containerId = ""] = await scene.living("a");
    const worker = { id: "w1", address: gateways.worker.address, bootNonce: "boot" };
    expect(route).toMatchObject({
      endpointName: "a",
      targets: [{ containerId, worker }],
      problem: undefined,
    });
    expect(route.spec.bodyBytesMax).toBe(1e8);
    const asked = gateway.asked();
    const workspaceName = `w-${scene.workspaceId}`;
    expect((await gateway.routing.find("a", { workspaceName }))?.endpointId).toBe(route.endpointId);
    expect(gateway.routing.current(route.deploymentId)).toBe(await find(gateway, "a"));
    expect(gateway.asked()).toBe(asked);
    const elsewhere = await EndpointScene.make(postgres.database, "w1", gateways.worker.address);
    expect(await gateway.routing.find("a", elsewhere)).toBeUndefined();
  });

  test("makes containers in the moment that requests wait, as many as they need at most", async () => {
    const gateway = await gateways.begin();
    const { deploymentId } = await active(gateway, "a", { containersMax: 4, concurrency: 2 });
    gateway.routing.demand(deploymentId, { queued: 0, inFlight: 2 });
    expect(await scene.living("a")).toHaveLength(1);
    gateway.routing.demand(deploymentId, { queued: 1, inFlight: 2 });
    await until("a second one", async () => (await scene.living("a")).length === 2 || undefined);
    gateway.routing.demand(deploymentId, { queued: 50, inFlight: 2 });
    await until("four", async () => (await scene.living("a")).length === 4 || undefined);
    await readyAll("a");
    const changed = Promise.withResolvers<void>();
    gateway.routing.onChange(() => {
      if (gateway.routing.current(deploymentId)?.targets.length === 4) changed.resolve();
    });
    if (gateway.routing.current(deploymentId)?.targets.length === 4) changed.resolve();
    await changed.promise;
  });

  test("lets those go that nothing needed for a while: no requests, then the end of theirs, then a stop", async () => {
    const gateway = await gateways.begin();
    const { deploymentId } = await active(gateway, "a", { keepWarmMs: 300 });
    const [id = ""] = await scene.living("a");
    const draining = Promise.withResolvers<number | undefined>();
    const ended = Promise.withResolvers<void>();
    gateways.drained = async () => {
      draining.resolve(gateway.routing.current(deploymentId)?.targets.length);
      await ended.promise;
    };
    gateway.routing.demand(deploymentId, { queued: 0, inFlight: 1 });
    gateway.routing.demand(deploymentId, nothing);
    await draining.promise;
    await until("no target", () => gateway.routing.current(deploymentId)?.targets.length === 0 || undefined);
    expect(gateways.told).toEqual([`drain ${id}`]);
    ended.resolve();
    await until("its end", async () => (await scene.containers.find(id))?.state === "stopped" || undefined);
    expect(gateways.told).toEqual([`drain ${id}`, `stop ${id}`]);
    expect(gateway.routing.current(deploymentId)).toBeDefined();
    // From zero.
    gateway.routing.demand(deploymentId, { queued: 1, inFlight: 0 });
    await until("another one", async () => (await scene.living("a")).length === 1 || undefined);
  });

  test("says why containers do not come up, until another one is to be tried", async () => {
    const gateway = await gateways.begin();
    gateways.output = "one\ntwo\u001b[2J\n";
    const { deploymentId } = await active(gateway, "a");
    const [first = ""] = await scene.living("a");
    await scene.containers.transition(first, {}, "exited", { exitCode: 0 });
    gateway.routing.demand(deploymentId, { queued: 1, inFlight: 0 });
    const second = await until("a second one", async () => (await scene.living("a"))[0]);
    const told = Promise.withResolvers<string>();
    gateway.routing.onChange(() => {
      const problem = gateway.routing.current(deploymentId)?.problem;
      if (problem !== undefined) told.resolve(problem);
    });
    await scene.fail(second);
    expect(await told.promise).toBe(`container ${second} failed: its port 8000 did not answer`);
    await until("the next one", async () => (await scene.living("a"))[0]);
    expect(gateway.routing.current(deploymentId)?.problem).toBeUndefined();

    await scene.deploy("b");
    const [never = ""] = await scene.living("b");
    await scene.run(never);
    await scene.containers.transition(never, {}, "exited", { exitCode: 1 });
    const failed = await until("its failure", async () => {
      const [latest] = (await scene.view("b")).deployments;
      return latest?.state === "failed" ? latest : undefined;
    });
    expect(failed.reason).toBe(
      `container ${never} ended with exit code 1 before it answered\none\ntwo\\u{1b}[2J`,
    );
    expect(await find(gateway, "b")).toBeUndefined();
  });

  test("sends nothing to a lost worker's containers, and finds a restarted worker's at once", async () => {
    const gateway = await gateways.begin();
    const { deploymentId } = await active(gateway, "a");
    const { id, address } = gateways.worker;
    await scene.scheduling.register({ ...registeringWorker(id, id, address), bootNonce: "again" });
    await until("its new boot", () => {
      const [target] = gateway.routing.current(deploymentId)?.targets ?? [];
      return target?.worker.bootNonce === "again" || undefined;
    });
    await postgres.database.query((db) =>
      db.update(workers).set({ state: "lost" }).where(eq(workers.id, id)),
    );
    const [lost = ""] = await scene.living("a");
    const events = [{ kind: "lost", message: "worker w1 was lost" }];
    await scene.containers.transition(lost, {}, "failed", { reason: "worker w1 was lost", events });
    await until("no target", () => gateway.routing.current(deploymentId)?.targets.length === 0 || undefined);
    gateway.routing.demand(deploymentId, { queued: 1, inFlight: 0 });
    await until("another one", async () => (await scene.living("a")).length === 1 || undefined);
  });

  test("that is told of an endpoint's removal sends it nothing, ends its containers, and then forgets it", async () => {
    const gateway = await gateways.begin();
    const { deploymentId } = await active(gateway, "a", { containersMin: 1 });
    const gone = Promise.withResolvers<void>();
    gateway.routing.onChange((id) => id === deploymentId && gone.resolve());
    await scene.endpoints.delete(scene.workspaceId, "a");
    await gone.promise;
    expect(gateway.routing.current(deploymentId)).toBeUndefined();
    await until("its end", async () => (await scene.endpoints.find("a", scene)) === undefined || undefined);
    expect(await scene.endpoints.delete(scene.workspaceId, "a")).toBeUndefined();
    expect(await find(gateway, "a")).toBeUndefined();
    expect((await active(gateway, "a")).deploymentId).not.toBe(deploymentId);
  });
});

describe("two gateways", () => {
  test("together never make more containers than there may be, nor twice what one would", async () => {
    const [one, two] = [await gateways.begin(), await gateways.begin()];
    const { deploymentId } = await active(one, "a", { containersMax: 6 });
    await until("its route there", () => find(two, "a"));
    for (let waiting = 1; waiting <= 40; waiting += 1)
      for (const { routing } of [one, two]) routing.demand(deploymentId, { queued: waiting, inFlight: 0 });
    await until("six", async () => (await scene.living("a")).length >= 6 || undefined);
    for (const { routing } of [one, two]) routing.demand(deploymentId, { queued: 80, inFlight: 0 });
    await readyAll("a");
    for (const { routing } of [one, two])
      await until("six targets", () => routing.current(deploymentId)?.targets.length === 6 || undefined);
    expect(await scene.living("a")).toHaveLength(6);
  });

  test("add up what each has to do, and leave out one that is gone", async () => {
    const [one, two] = [await gateways.begin(), await gateways.begin()];
    const { deploymentId } = await active(one, "a", { concurrency: 4 });
    await until("its route there", () => find(two, "a"));
    const demand = async () => (await scene.view("a")).deployments[0]?.demand;
    one.routing.demand(deploymentId, { queued: 0, inFlight: 3 });
    two.routing.demand(deploymentId, { queued: 1, inFlight: 2 });
    await until("both", async () => {
      const all = await demand();
      return (all?.queued === 1 && all.inFlight === 5) || undefined;
    });
    await until("two containers", async () => (await scene.living("a")).length === 2 || undefined);
    await two.close(false);
    await postgres.database.query((db) =>
      db
        .update(deploymentDemands)
        .set({ seenAt: sql`now() - interval '11 seconds'` })
        .where(eq(deploymentDemands.gatewayId, two.id)),
    );
    expect(await demand()).toEqual({ queued: 0, inFlight: 3 });
    one.routing.demand(deploymentId, nothing);
    await until("nothing", async () => (await demand())?.inFlight === 0 || undefined);
  });

  test("one of which begins later finds what the other left, and ends what that was ending", async () => {
    const one = await gateways.begin();
    const { deploymentId } = await active(one, "a");
    const [old = ""] = await scene.living("a");
    await one.close(false);
    await scene.deploy("a", { public: true });
    const [young = ""] = await scene.living("a", 2);
    await scene.ready(young);
    await scene.decide("a");
    const two = await gateways.begin();
    await until(
      "the end of the old one",
      async () => (await scene.containers.find(old))?.state === "stopped" || undefined,
    );
    const route = await until("a route", () => find(two, "a"));
    expect(route.deploymentId).not.toBe(deploymentId);
    expect(route.targets.map(({ containerId }) => containerId)).toEqual([young]);
    await until(
      "the old version's retirement",
      async () => (await scene.view("a")).deployments.length === 1 || undefined,
    );
  });
});
