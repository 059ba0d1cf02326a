import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Runtime } from "./runtime.ts";
import type { ContainerSpec } from "./spec.ts";
import { imageConfig, TestHost, textOf } from "./test-host.ts";

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

const never = new AbortController().signal;

async function runToEnd(spec: ContainerSpec) {
  const container = await runtime.start(spec, never);
  try {
    const exit = await container.exited;
    const output = await textOf(runtime.logs(spec.id), "stdout");
    const errors = await textOf(runtime.logs(spec.id), "stderr");
    return { exit, output, errors };
  } finally {
    await container.cleanup();
    await container.removeLog();
  }
}

test("runs a command and reports its output and exit code", async () => {
  const { exit, output, errors } = await runToEnd(host.spec(["sh", "-c", "echo out; echo err >&2; exit 7"]));
  expect(exit).toMatchObject({ exitCode: 7, oomKilled: false });
  expect(exit.signal).toBeUndefined();
  expect(output).toBe("out\n");
  expect(errors).toBe("err\n");
});
