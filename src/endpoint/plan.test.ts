import { describe, expect, test } from "bun:test";
import { generousLimits, specOf } from "./endpoint.test-kit.ts";
import { type Action, type PlanInput, planOf, problemOf } from "./plan.ts";
import { troubleOf } from "./trouble.ts";
import type { ContainerView, DeploymentView, EndpointView } from "./view.ts";

const now = new Date("2030-01-01T00:10:00Z");
const ago = (ms: number) => new Date(now.getTime() - ms);
const input: PlanInput = {
  now,
  limits: generousLimits,
  peakOf: () => ({ needed: 0, watchedMs: 1e9 }),
};

function container(age: number, change: Partial<ContainerView> = {}): ContainerView {
  return {
    id: `c-${age}`,
    deploymentId: "d",
    state: "preparing",
    createdAt: ago(age),
    updatedAt: ago(age),
    readyAt: undefined,
    finishedAt: undefined,
    drainingAt: undefined,
    exitCode: undefined,
    signal: undefined,
    oomKilled: false,
    reason: undefined,
    lost: false,
    worker: { id: "w", address: "https://w", bootNonce: "b" },
    ...change,
  };
}

const ready = (age: number, change: Partial<ContainerView> = {}) =>
  container(age, { state: "running", readyAt: ago(age), ...change });
const failed = (age: number, change: Partial<ContainerView> = {}) =>
  container(age, { state: "failed", finishedAt: ago(age), reason: "no", ...change });

function deployment(version: number, change: Partial<DeploymentView> = {}): DeploymentView {
  return {
    id: `d-${version}`,
    endpointId: "e",
    workspaceId: "w",
    version,
    state: "active",
    spec: specOf("img"),
    reason: undefined,
    createdAt: ago(60_000),
    imageId: "img",
    lastUsedAt: now,
    living: [],
    ended: [],
    demand: { queued: 0, inFlight: 0 },
    ...change,
  };
}

function plan(deployments: readonly DeploymentView[], change: Partial<EndpointView> = {}) {
  const active = deployments.find(({ state }) => state === "active");
  const view: EndpointView = {
    id: "e",
    workspaceId: "w",
    workspaceName: "w",
    name: "n",
    activeDeploymentId: active?.id,
    deletingAt: undefined,
    createdAt: ago(1e6),
    updatedAt: ago(1e6),
    deployments,
    clockAheadMs: 0,
    ...change,
  };
  return planOf(view, input).map(told);
}

function told(action: Action): string {
  if (action.kind === "create") return `create ${action.count} of ${action.deployment.version}`;
  if (action.kind === "drain") return `drain ${action.containers.map(({ id }) => id).join(" ")}`;
  if (action.kind === "fail") return `fail ${action.deployment.version} by ${action.container.id}`;
  return action.kind === "forget" ? action.kind : `${action.kind} ${action.deployment.version}`;
}

describe("a deployment on its way up", () => {
  const starting = (change: Partial<DeploymentView> = {}) => deployment(2, { state: "starting", ...change });

  test("gets one container, and another one only when its worker lost the first", () => {
    expect(plan([starting()])).toEqual(["create 1 of 2"]);
    expect(plan([starting({ living: [container(5)] })])).toEqual([]);
    expect(plan([starting({ ended: [failed(5, { lost: true })] })])).toEqual(["create 1 of 2"]);
    expect(plan([starting({ ended: [failed(5)] })])).toEqual(["fail 2 by c-5"]);
    expect(plan([starting({ ended: [ready(5, { state: "exited", finishedAt: ago(1) })] })])).toEqual([
      "fail 2 by c-5",
    ]);
  });

  test("takes over when it can take what is under way, at the latest some seconds after its first answers", () => {
    const busy = deployment(1, {
      living: [ready(9e4), ready(8e4), ready(7e4)],
      demand: { queued: 1, inFlight: 2 },
    });
    expect(plan([starting({ living: [ready(100)] }), busy])).toEqual(["create 2 of 2"]);
    expect(plan([starting({ living: [container(90), container(95), ready(100)] }), busy])).toEqual([]);
    expect(plan([starting({ living: [ready(90), ready(95), ready(100)] }), busy])).toEqual(["activate 2"]);
    expect(plan([starting({ living: [container(90), ready(5_000)] }), busy])).toEqual(["activate 2"]);
    // By a clock that is an hour ahead.
    const ahead = ready(70_000, { readyAt: ago(-3_600_000) });
    expect(plan([starting({ living: [ahead] }), busy])).toEqual(["activate 2"]);
    expect(plan([starting({ living: [ready(100)], ended: [failed(50)] }), busy])).toEqual([]);
  });

  test("does not count one whose worker does not serve", () => {
    expect(plan([starting({ living: [ready(9_000, { worker: undefined })] })])).toEqual([]);
  });
});

describe("what is over", () => {
  test("drains once, and retires when its last container has ended", () => {
    const living = [ready(5, { drainingAt: ago(1) }), ready(7)];
    expect(plan([deployment(1, { state: "draining", living })])).toEqual(["drain c-7"]);
    expect(plan([deployment(1, { state: "draining" })])).toEqual(["retire 1"]);
    expect(plan([deployment(1, { state: "failed", living: [container(3)] })])).toEqual(["drain c-3"]);
    expect(plan([deployment(1, { state: "failed" })])).toEqual([]);
  });

  test("of an endpoint that is removed drains, whatever it is, and then the endpoint goes", () => {
    const all = [
      deployment(2, { state: "starting", living: [container(3)] }),
      deployment(1, { living: [ready(9)] }),
    ];
    expect(plan(all, { deletingAt: now })).toEqual(["drain c-3 c-9"]);
    expect(plan([deployment(1)], { deletingAt: now })).toEqual(["forget"]);
  });
});

describe("containers that do not come up", () => {
  const pauseOf = (ended: readonly ContainerView[], living: readonly ContainerView[] = []) => {
    const trouble = troubleOf({ ended, living });
    return trouble === undefined ? undefined : trouble.until.getTime() - (ended[0]?.updatedAt.getTime() ?? 0);
  };
  const failures = (count: number) => Array.from({ length: count }, (_, at) => failed(100 + at));

  test("are tried again after ever longer, up to a minute", () => {
    expect([1, 2, 3, 6, 7, 30].map((count) => pauseOf(failures(count)))).toEqual([
      1_000, 2_000, 4_000, 32_000, 60_000, 60_000,
    ]);
    expect(
      pauseOf([failed(100), ready(200, { state: "exited", readyAt: ago(60_000), finishedAt: ago(200) })]),
    ).toBe(1_000);
    // One that answers is proof enough.
    expect(pauseOf(failures(3), [ready(50)])).toBeUndefined();
    expect(pauseOf(failures(3), [container(50)])).toBe(4_000);
  });

  test("say nothing where they were told to end, or lost", () => {
    expect(pauseOf([failed(100, { lost: true }), failed(101, { drainingAt: ago(200) })])).toBeUndefined();
  });

  test("after they answered are replaced soon, however often that is", () => {
    const crashed = (age: number) =>
      ready(age, { state: "exited", readyAt: ago(age + 50), finishedAt: ago(age) });
    expect(pauseOf([crashed(10)])).toBe(0);
    expect(pauseOf([crashed(10), crashed(20)])).toBe(250);
    expect(pauseOf(Array.from({ length: 40 }, (_, at) => crashed(10 + at)))).toBe(2_000);
    expect(troubleOf({ living: [], ended: [crashed(10)] })?.problem).toBeUndefined();
  });

  test("are told to those who wait, for as long as no other is tried and none answers", () => {
    const ended = [failed(500, { exitCode: 1, reason: "it ended" })];
    const problem = (change: Partial<DeploymentView>) =>
      problemOf(deployment(1, { ended, ...change }), now)?.problem;
    expect(problem({})).toBe("container c-500 ended with exit code 1: it ended");
    expect(problem({ living: [ready(9_000)] })).toBeUndefined();
    expect(problem({ ended: [failed(1_000)] })).toBeUndefined();
    const busy = { demand: { queued: 1, inFlight: 0 }, living: [] };
    expect(plan([deployment(1, { ...busy, ended })])).toEqual([]);
    expect(plan([deployment(1, { ...busy, ended: [failed(1_000)] })])).toEqual(["create 1 of 1"]);
  });
});
