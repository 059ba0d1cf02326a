import { expect, test } from "bun:test";
import { cgroupProblem, probeRuntime } from "./probe.ts";

test("finds the runtime, its monitor and what the host can limit", async () => {
  const probe = await probeRuntime("runc");
  expect(probe.problems).toEqual([]);
  expect(probe.runtime.version).toMatch(/^\d+\.\d+/);
  expect(probe.conmon).toMatchObject({ name: "conmon", version: expect.stringMatching(/^\d+\.\d+/) });
  expect(["v1", "hybrid", "v2"]).toContain(probe.cgroupMode);
  expect(probe.limits).toMatchObject({ memory: true, cpu: true, pids: true });
});

test("says what is missing instead of failing", async () => {
  const probe = await probeRuntime("runc", "no-such-monitor");
  expect(probe.conmon).toEqual({ name: "no-such-monitor" });
  expect(probe.problems).toEqual(["no-such-monitor is not installed or does not run"]);
});

test("knows which runtime cannot work with which cgroups", () => {
  expect(cgroupProblem("crun", "hybrid")).toContain("crun refuses");
  expect(cgroupProblem("runc", "hybrid")).toBeUndefined();
  expect(cgroupProblem("crun", "v2")).toBeUndefined();
  expect(cgroupProblem("runc", "none")).toContain("no cgroups");
});
