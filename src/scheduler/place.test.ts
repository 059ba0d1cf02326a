import { expect, test } from "bun:test";
import { type Candidate, type Demand, type PlacedVolume, place } from "./place.ts";

const demand: Demand = {
  cpuMillis: 500,
  memoryBytes: 100,
  platform: "linux/amd64",
  manifestDigest: "sha256:a",
  volumes: [],
  requestVersion: 0,
};

function worker(id: string, changes: Partial<Candidate> = {}): Candidate {
  return {
    id,
    platform: "linux/amd64",
    cpuMillis: 2000,
    memoryBytes: 1000,
    cpuMillisUsed: 0,
    memoryBytesUsed: 0,
    containers: 0,
    requestVersion: 0,
    manifestDigests: new Set(),
    ...changes,
  };
}

test("waits while no worker is ready", () => {
  expect(place(demand, [])).toEqual({ kind: "wait", reason: "no worker is ready" });
});

test("says that no worker runs the image's platform", () => {
  expect(place({ ...demand, platform: "linux/arm64" }, [worker("w1")])).toEqual({
    kind: "impossible",
    reason: "no worker runs linux/arm64",
  });
});

test("takes a worker whatever variant of the architecture it names", () => {
  const arm = worker("w1", { platform: "linux/arm64" });
  expect(place({ ...demand, platform: "linux/arm64/v8" }, [arm])).toEqual({ kind: "placed", workerId: "w1" });
});

test("tells what can never fit from what must wait", () => {
  expect(place({ ...demand, memoryBytes: 5000 }, [worker("w1")]).kind).toBe("impossible");
  expect(place(demand, [worker("w1", { cpuMillisUsed: 1800 })])).toEqual({
    kind: "wait",
    reason: "every worker is full",
  });
});

test("prefers the worker that has the image over an emptier one", () => {
  const warm = worker("w2", { cpuMillisUsed: 1000, manifestDigests: new Set(["sha256:a"]) });
  expect(place(demand, [worker("w1"), warm])).toEqual({ kind: "placed", workerId: "w2" });
});

test("prefers the worker that stays the least loaded, then the fewer containers, then the smaller id", () => {
  expect(place(demand, [worker("w1", { memoryBytesUsed: 500 }), worker("w2")])).toEqual({
    kind: "placed",
    workerId: "w2",
  });
  expect(place(demand, [worker("w1", { containers: 3 }), worker("w2", { containers: 1 })])).toEqual({
    kind: "placed",
    workerId: "w2",
  });
  expect(place(demand, [worker("w2"), worker("w1")])).toEqual({ kind: "placed", workerId: "w1" });
});

test("passes over workers that would leave out some of what the container is run with, and waits where all would", () => {
  const wanted = { ...demand, requestVersion: 1 };
  const former = worker("w1", { manifestDigests: new Set(["sha256:a"]) });
  const upgraded = worker("w2", { requestVersion: 1, containers: 9 });
  expect(place(demand, [former, upgraded])).toEqual({ kind: "placed", workerId: "w1" });
  expect(place(wanted, [former, upgraded])).toEqual({ kind: "placed", workerId: "w2" });
  const reason = (who: string) =>
    `${who} is of an earlier version, which would leave out some of what the container is run with: upgrade it`;
  // The others are too small, or of another platform, and stay so.
  for (const change of [{ cpuMillis: 100 }, { platform: "linux/arm64" }])
    expect(place(wanted, [former, { ...upgraded, ...change }])).toEqual({
      kind: "wait",
      reason: reason("every worker that could take it"),
    });
  expect(place({ ...wanted, volumes: [volume("a", "w1")] }, [former, upgraded])).toEqual({
    kind: "wait",
    reason: reason("its volume a is on worker w1, which"),
  });
});

const volume = (name: string, workerId: string, state: PlacedVolume["worker"] = "there"): PlacedVolume => ({
  name,
  workerId,
  worker: state,
});

test("places a container where its volumes are, and waits while that worker is away or full", () => {
  const warm = worker("w2", { manifestDigests: new Set(["sha256:a"]) });
  const with1 = { ...demand, volumes: [volume("data", "w1"), volume("more", "w1")] };
  expect(place(with1, [worker("w1", { containers: 9 }), warm])).toEqual({ kind: "placed", workerId: "w1" });
  for (const ready of [[], [warm]])
    expect(place(with1, ready)).toEqual({
      kind: "wait",
      reason: "its volume data is on worker w1, which is away",
    });
  expect(place(with1, [worker("w1", { cpuMillisUsed: 1800 }), warm])).toEqual({
    kind: "wait",
    reason: "its volume data is on worker w1, which is full",
  });
});

test("says what can never be of volumes, and what to do", () => {
  const workers = [worker("w1"), worker("w2")];
  const told = (change: Partial<Demand>) => {
    const placement = place({ ...demand, ...change }, workers);
    return placement.kind === "impossible" ? placement.reason : placement.kind;
  };
  expect(told({ volumes: [volume("a", "w1"), volume("b", "w2")] })).toBe(
    "its volumes a and b are on different workers, w1 and w2: use those of one",
  );
  expect(told({ volumes: [volume("a", "w9", "gone")] })).toContain(
    "revoked: give it up with `oci-node volume rm a`",
  );
  expect(told({ volumes: [volume("a", "w1")], memoryBytes: 5000 })).toBe(
    "its volume a is on worker w1, which has not as much CPU and memory as the container asks for",
  );
  expect(told({ volumes: [volume("a", "w1")], platform: "linux/arm64" })).toContain(
    "does not run linux/arm64",
  );
});
