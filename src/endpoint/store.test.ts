import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { ImageStore } from "../image/store.ts";
import { removeWorkspace } from "../secret/workspace-removal-store.ts";
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

describe("an endpoint", () => {
  test("keeps its image, and the code of its function, from being removed", async () => {
    await scene.deploy("a");
    const [id = ""] = await scene.living("a");
    await scene.ready(id);
    await scene.decide("a");
    await scene.containers.transition(id, {}, "stopped");
    const images = new ImageStore(postgres.database);
    await expect(images.remove(scene.workspaceId, scene.imageId)).rejects.toMatchObject({
      code: "in_use",
      message: `image ${scene.imageId} is deployed as a`,
    });
    const handler = { codeSha256: "a".repeat(64), name: "app:handler" };
    await expect(scene.deploy("b", { handler, command: [] })).rejects.toMatchObject({ code: "code_missing" });
    expect(await scene.endpoints.find("b", scene)).toBeUndefined();
    await expect(scene.deploy("b", { imageId: "img-none" })).rejects.toMatchObject({
      code: "image_not_found",
    });
  });

  test("that is being removed gets no containers and no deployments, and all go with their workspace", async () => {
    await scene.deploy("a", { containersMin: 2 });
    await scene.deploy("b");
    const [first = ""] = await scene.living("a");
    await scene.ready(first);
    expect(await scene.decide("a")).toEqual(["create"]);
    await scene.endpoints.deleteAll(scene.workspaceId);
    expect([await scene.decide("a"), await scene.decide("b")]).toEqual([["drain"], ["drain"]]);
    await expect(scene.deploy("a")).rejects.toMatchObject({ code: "conflict" });
    for (const { id } of await scene.containers.list(scene.workspaceId))
      await scene.containers.transition(id, {}, "stopped");
    await removeWorkspace(postgres.database, `w-${scene.workspaceId}`);
    expect(await scene.endpoints.viewsOf(scene.workspaceId)).toEqual([]);
  });

  test("of one workspace is not another's, though it has the same name", async () => {
    const other = await EndpointScene.make(postgres.database);
    const [own, foreign] = [await scene.deploy("a"), await other.deploy("a")];
    expect(own.endpointId).not.toBe(foreign.endpointId);
    expect((await scene.endpoints.viewsOf(scene.workspaceId)).map(({ id }) => id)).toEqual([own.endpointId]);
    expect(await other.endpoints.find("a", scene)).toBe(own.endpointId);
    await other.endpoints.delete(other.workspaceId, "a");
    expect((await scene.view("a")).deletingAt).toBeUndefined();
  });
});
