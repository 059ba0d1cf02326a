import { expect, test } from "bun:test";
import { firewallLines } from "./network.test-kit.ts";
import { probeNetwork } from "./probe.ts";
import { defaultNetworkSettings, overlaps } from "./settings.ts";

test("says what a private network would have, and changes nothing", async () => {
  const probe = await probeNetwork({ ...defaultNetworkSettings, dns: ["192.0.2.53"] });
  expect(probe).toMatchObject({ problems: [], warnings: [] });
  expect(probe.found).toEqual(["addresses from 10.210.0.0/16", "names by 192.0.2.53"]);
  expect(await firewallLines("/probe")).toEqual([]);
});

test("says what is missing, and what the containers' addresses hide", async () => {
  const line = (await Bun.file("/proc/net/route").text())
    .split("\n")
    .slice(1)
    .find((row) => row !== "");
  const link = line?.split("\t")[0] ?? "";
  const probe = await probeNetwork({
    ...defaultNetworkSettings,
    cniPath: ["/nonexistent"],
    subnet: "0.0.0.0/0",
  });
  expect(probe.problems[0]).toMatchObject({
    found: expect.stringContaining("ptp is not in /nonexistent"),
    next: expect.stringContaining("--network none"),
  });
  expect(probe.warnings.join("\n")).toContain(` by ${link}, which `);
});

test("knows ranges that share an address", () => {
  expect(overlaps("10.0.0.0/8", "10.210.0.0/16")).toBe(true);
  expect(overlaps("10.210.7.9/32", "10.210.0.0/16")).toBe(true);
  expect(overlaps("10.211.0.0/16", "10.210.0.0/16")).toBe(false);
  expect(overlaps("0.0.0.0/0", "203.0.113.0/24")).toBe(true);
});
