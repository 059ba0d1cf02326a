import { expect, test } from "bun:test";
import { type Candidate, type Demand, place } from "./place.ts";

const demand: Demand = {
  cpuMillis: 500,
  memoryBytes: 100,
  platform: "linux/amd64",
  manifestDigest: "sha256:a",
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
