import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runCampaign } from "./campaign.ts";
import { nativeTargets, runNativeCampaign } from "./native.ts";
import { targets } from "./targets.ts";

let findings: string;
beforeAll(async () => {
  findings = await mkdtemp(join(tmpdir(), "oci-node-findings-"));
});
afterAll(async () => {
  await rm(findings, { recursive: true, force: true });
});

/** Inputs of each target: what takes about a second. `npm run fuzz` goes on. */
const counts: Readonly<Record<string, number>> = {
  tar: 2000,
  "gnu-tar": 60,
  layer: 150,
  "chunk-table": 60,
  toc: 800,
  "span-file": 150,
  "image-json": 3000,
  trace: 3000,
  erofs: 60,
  registry: 3000,
  "image-root": 150,
  "credential-source": 1000,
  code: 150,
};

test.each(targets.map(({ name }) => name))("%s keeps its promises", async (target) => {
  const result = await runCampaign({ target, seed: 1, seconds: 60, count: counts[target] ?? 100, findings });
  expect(result).toEqual({ target, executions: counts[target] ?? 100 });
});

test.each([...nativeTargets])("%s keeps its promises under the sanitizers", async (target) => {
  const result = await runNativeCampaign({ target, seed: 1, seconds: 30, count: 200, findings });
  expect(result).toEqual({ target, executions: 200 });
});

test("a process that dies is a finding, and says how to have it again", async () => {
  const { finding } = await runCampaign({ target: "unknown", seed: 7, seconds: 60, findings });
  expect(finding?.message).toContain("the process died (1)");
  expect(await readFile(`${finding?.path}.txt`, "utf8")).toContain("--only unknown --seed 7 --from 0");
});
