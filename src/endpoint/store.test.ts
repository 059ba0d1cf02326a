import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { EndpointScene } from "./endpoint.test-kit.ts";
import { activeOf } from "./view.ts";

let postgres: TestPostgres;
let scene: EndpointScene;

beforeAll(async () => {
  postgres = await startTestPostgres();
}, 60_000);
beforeEach(async () => {
  scene = await EndpointScene.make(postgres.database);
});
afterAll(() => postgres.end(), 60_000);

describe("a deployment", () => {
  test("is made with a first container, and takes the requests once that answers", async () => {
    const { deployment, made } = await scene.deploy("a");
    expect([made, deployment.version, deployment.state]).toEqual([true, 1, "starting"]);
    const [first = ""] = await scene.living("a");
    expect(await scene.containers.find(first)).toMatchObject({
      state: "pending",
      deploymentId: deployment.id,
      serving: { port: 8000, startupTimeoutMs: 60_000, concurrency: 1 },
    });
    await scene.run(first);
    expect(await scene.decide("a")).toEqual([]);
    await scene.containers.observe(first, {}, { phases: { ready: new Date() } });
    expect(await scene.decide("a")).toEqual(["activate"]);
    expect(activeOf(await scene.view("a"))).toMatchObject({ id: deployment.id, state: "active" });
    expect(await scene.decide("a")).toEqual([]);
  });

  test("that is equal to the one before is not made, unless it is forced", async () => {
    await scene.deploy("a", { env: { A: "1", B: "2" } });
    const again = await scene.deploy("a", { env: { B: "2", A: "1" } });
    expect([again.made, again.deployment.version]).toEqual([false, 1]);
    const forced = await scene.deploy("a", { env: { A: "1", B: "2" } }, true);
    expect([forced.made, forced.deployment.version]).toEqual([true, 2]);
    const { deployments } = await scene.view("a");
    expect(deployments.map(({ version, state }) => [version, state])).toEqual([
      [2, "starting"],
      [1, "retired"],
    ]);
  });

  test("takes the place of the one before in one step, which then drains and retires", async () => {
    await scene.deploy("a");
    const [old = ""] = await scene.living("a");
    await scene.ready(old);
    await scene.decide("a");
    await scene.deploy("a", { public: true });
    const [young = ""] = await scene.living("a", 2);
    expect(activeOf(await scene.view("a"))?.version).toBe(1);
    await scene.ready(young);
    expect(await scene.decide("a")).toEqual(["activate"]);
    expect(activeOf(await scene.view("a"))?.version).toBe(2);
    expect((await scene.containers.find(old))?.drainingAt).toBeDate();
    await scene.containers.transition(old, {}, "stopped");
    expect(await scene.decide("a")).toEqual(["retire"]);
  });

  test("that does not come up fails with what its container last said, and the one before goes on", async () => {
    await scene.deploy("a");
    const [old = ""] = await scene.living("a");
    await scene.ready(old);
    await scene.decide("a");
    await scene.deploy("a", { public: true });
    const [young = ""] = await scene.living("a", 2);
    await scene.run(young);
    await scene.containers.transition(young, {}, "exited", { exitCode: 3 });
    // Its output is asked for first.
    expect(await scene.decide("a")).toEqual([]);
    expect(await scene.decide("a", new Map([[young, "no module x\0"]]))).toEqual(["fail"]);
    const { deployments, activeDeploymentId } = await scene.view("a");
    expect(deployments[0]).toMatchObject({
      state: "failed",
      reason: `container ${young} ended with exit code 3 before it answered\nno module x�`,
    });
    expect(deployments[1]).toMatchObject({ id: activeDeploymentId, state: "active" });
    expect((await scene.containers.find(old))?.drainingAt).toBeUndefined();
  });
});
