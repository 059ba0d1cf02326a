import { afterAll, beforeAll, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TestHost, textOf } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import type { LogChunk } from "../spec.ts";

const logSizeMaxBytes = 100_000;
const never = new AbortController().signal;

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime({ logSizeMaxBytes });
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

test("gives back every byte of binary output, and no byte more", async () => {
  const bytes = randomBytes(40_000);
  await writeFile(join(host.imageRoot, "binary"), bytes);
  const spec = host.spec(["cat", "/binary"]);
  const container = await runtime.start(spec, never);
  const followed: Uint8Array[] = [];
  for await (const chunk of runtime.logs(spec.id, { follow: true })) followed.push(chunk.data);
  expect(Buffer.concat(followed).equals(bytes)).toBe(true);
  await container.cleanup();
  await container.removeLog();
});

test("follows a container line by line until its last byte", async () => {
  const script =
    "echo ready; while [ ! -e /go ]; do sleep 0.02; done; printf 'one'; echo ' two'; printf end; exit 3";
  const spec = host.spec(["sh", "-c", script]);
  const container = await runtime.start(spec, never);
  const seen: string[] = [];
  for await (const chunk of runtime.logs(spec.id, { follow: true })) {
    seen.push(Buffer.from(chunk.data).toString());
    expect(Math.abs(Date.now() - chunk.time.getTime())).toBeLessThan(60_000);
    if (seen.length === 1) await writeFile(join(host.rootOf(spec.id), "go"), "");
  }
  expect(seen[0]).toBe("ready\n");
  expect(seen.join("")).toBe("ready\none two\nend");
  await container.cleanup();
  await container.removeLog();
});

test("ends quietly when the signal fires, and leaves the container alone", async () => {
  const spec = host.spec(["sh", "-c", "echo a; exec sleep 1000"]);
  const container = await runtime.start(spec, never);
  const controller = new AbortController();
  const seen: LogChunk[] = [];
  for await (const chunk of runtime.logs(spec.id, { follow: true, signal: controller.signal })) {
    seen.push(chunk);
    controller.abort();
  }
  expect(seen).toHaveLength(1);
  expect(container.alive()).toBe(true);
  expect(await textOf(runtime.logs(spec.id))).toBe("a\n");
  await container.cleanup();
  await container.removeLog();
});

test("bounds the log of a container that writes much, and keeps its end", async () => {
  // Not faster than a busy machine looks after generations: what is dropped between two looks is lost.
  const paced = "while [ $i -lt 8000 ]; do echo line $i; i=$((i+1)); [ $((i%400)) = 0 ] && sleep 0.05; done";
  const spec = host.spec(["sh", "-c", `i=0; ${paced}`]);
  const container = await runtime.start(spec, never);
  const followed = textOf(runtime.logs(spec.id, { follow: true }));
  await container.exited;
  const lines = (await textOf(runtime.logs(spec.id))).split("\n");
  expect(lines.at(-1)).toBe("");
  expect(lines.at(-2)).toBe("line 7999");
  const numbers = lines.slice(0, -1).map((line) => Number(/^line (\d+)$/.exec(line)?.[1]));
  // Two generations: more than one file holds, each number once and in order.
  expect(numbers.length * 55).toBeGreaterThan(logSizeMaxBytes);
  expect(numbers.every((number, at) => at === 0 || number > numbers[at - 1]!)).toBe(true);
  expect((await followed).endsWith("line 7998\nline 7999\n")).toBe(true);
  const logs = join(host.stateDir, "logs");
  const sizes = await Promise.all(
    [`${spec.id}.log`, `${spec.id}.log.1`].map((name) => stat(join(logs, name))),
  );
  for (const { size } of sizes) expect(size).toBeLessThanOrEqual(logSizeMaxBytes);
  await container.cleanup();
  expect(await textOf(runtime.logs(spec.id))).toBe(lines.join("\n"));
  await container.removeLog();
});

test("knows no log of a container that never was", async () => {
  for (const id of ["nobody", "../exits"]) {
    const failure = await Array.fromAsync(runtime.logs(id)).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "not_found" });
  }
});
