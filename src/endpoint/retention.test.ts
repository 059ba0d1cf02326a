import { afterAll, beforeAll, expect, test } from "bun:test";
import { HousekeepingStore } from "../container/housekeeping-store.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { EndpointScene } from "./endpoint.test-kit.ts";
import { forgetOld } from "./retention.ts";
import { RetentionStore } from "./retention-store.ts";

let postgres: TestPostgres;

beforeAll(async () => {
  postgres = await startTestPostgres();
}, 60_000);
afterAll(() => postgres.end(), 60_000);

test("of an endpoint the latest deployments and ended containers are kept, of one that is gone nothing", async () => {
  const { database } = postgres;
  const scene = await EndpointScene.make(database);
  const removed: string[] = [];
  const dependencies = {
    retention: new RetentionStore(database),
    housekeeping: new HousekeepingStore(database),
    removeOutput: async ({ id }: { readonly id: string }) => void removed.push(id),
  };
  const all = async () => await scene.containers.list(scene.workspaceId, { all: true });

  for (let version = 1; version <= 5; version += 1) {
    await scene.deploy("a", {}, true);
    const [id = ""] = await scene.living("a", version);
    await scene.fail(id);
    await scene.decide("a", new Map([[id, ""]]));
  }
  await scene.deploy("a", {}, true);
  const [kept = ""] = await scene.living("a", 6);
  await forgetOld(dependencies, { containers: 3, deployments: 2 });
  expect(removed).toHaveLength(3);
  expect((await scene.view("a")).deployments[0]?.version).toBe(6);
  expect(await all()).toHaveLength(3);

  await scene.ready(kept);
  await scene.decide("a");
  await scene.containers.transition(kept, {}, "exited", { exitCode: 0 });
  const { activeDeploymentId: deploymentId = "" } = await scene.view("a");
  await scene.demands.write(crypto.randomUUID(), [{ deploymentId, queued: 1, inFlight: 0 }]);
  for (let round = 0; round < 5; round += 1) {
    expect(await scene.decide("a")).toEqual(["create"]);
    const [id = ""] = await scene.living("a");
    await scene.ready(id);
    await scene.containers.transition(id, {}, "exited", { exitCode: 0 });
    // As if it had been made long ago: those that end soon are not replaced at once.
    await scene.age(id);
  }
  removed.length = 0;
  await forgetOld(dependencies, { containers: 3, deployments: 2 });
  expect(removed).toHaveLength(3);

  await scene.endpoints.delete(scene.workspaceId, "a");
  expect(await scene.decide("a")).toEqual(["forget"]);
  await forgetOld(dependencies, { containers: 3, deployments: 2 });
  expect(await all()).toEqual([]);
}, 60_000);
