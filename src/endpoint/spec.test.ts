import { describe, expect, test } from "bun:test";
import { defaultOptions } from "../container/options.ts";
import { generousLimits, specOf } from "./endpoint.test-kit.ts";
import { checkName, containerOf, resolveSpec, sameSpec, type WantedSpec, withLimits } from "./spec.ts";

const handler = { codeSha256: "a".repeat(64), name: "app.api:handler" };
const unset = {
  port: 0,
  requestTimeoutMs: 0,
  concurrency: 0,
  queueMax: 0,
  containersMin: 0,
  containersMax: 0,
  keepWarmMs: 0,
  startupTimeoutMs: 0,
};
const wanted = (change: Partial<WantedSpec> = {}): WantedSpec => ({
  ...specOf("img-1"),
  ...unset,
  ...change,
});
const refusal = (change: Partial<WantedSpec>) => {
  try {
    return resolveSpec(wanted(change), generousLimits);
  } catch (error) {
    return (error as Error).message;
  }
};

describe("a name", () => {
  test.each(["a", "web", "web-2", "0", "a".repeat(63)])("may be %s", (name) => checkName(name));

  test.each(["", "Web", "-a", "a-", "a.b", "a/b", "a b", "ä", "a\u202e", "a".repeat(64), "..", "a%2e"])(
    "may not be %j",
    (name) => expect(() => checkName(name)).toThrow("cannot name an endpoint"),
  );
});

describe("what is not said", () => {
  test("is worked out, by whether a function or a server is run", () => {
    expect(resolveSpec(wanted(), generousLimits)).toMatchObject({
      port: 8000,
      requestTimeoutMs: 60_000,
      concurrency: 100,
      queueMax: 100,
      containersMin: 0,
      containersMax: 10,
      keepWarmMs: 60_000,
      startupTimeoutMs: 60_000,
      bodyBytesMax: 0,
    });
    expect(resolveSpec(wanted({ handler, command: [] }), generousLimits).concurrency).toBe(1);
    const tight = { bodyBytesMax: 1, containersMax: 3, queueMax: 5 };
    expect(resolveSpec(wanted(), tight)).toMatchObject({ containersMax: 3, queueMax: 5 });
  });

  test("of an operator who allows less by now holds for what is deployed", () => {
    const spec = specOf("img-1", { containersMin: 8, containersMax: 10, bodyBytesMax: 0, queueMax: 50 });
    const limits = { bodyBytesMax: 7, containersMax: 4, queueMax: 20 };
    expect(withLimits(spec, limits)).toMatchObject({
      containersMin: 4,
      containersMax: 4,
      bodyBytesMax: 7,
      queueMax: 20,
    });
    expect(withLimits({ ...spec, bodyBytesMax: 3 }, limits).bodyBytesMax).toBe(3);
  });
});

describe("what no endpoint can be", () => {
  const port = { hostAddress: "127.0.0.1", hostPort: 1, containerPort: 1, protocol: "tcp" } as const;
  test.each<[string, Partial<WantedSpec>]>([
    ["publishes no ports", { options: { ...defaultOptions, ports: [port] } }],
    ["no restart policy", { options: { ...defaultOptions, restart: { kind: "always", retriesMax: 0 } } }],
    ["no terminal", { options: { ...defaultOptions, terminal: true } }],
    ["no standard input", { options: { ...defaultOptions, stdin: true } }],
    ["have no network", { network: "none" }],
    ["no SHA-256", { handler: { ...handler, codeSha256: "A".repeat(64) }, command: [] }],
    ["names no handler", { handler: { ...handler, name: "app" }, command: [] }],
    ["names no handler", { handler: { ...handler, name: "app:h()" }, command: [] }],
    ["names no handler", { handler: { ...handler, name: "..app:h" }, command: [] }],
    ["names no handler", { handler: { ...handler, name: "app:h\n" }, command: [] }],
    ["runner of its own", { handler }],
    ["runner of its own", { handler, command: [], options: { ...defaultOptions, entrypoint: [] } }],
    ["port is 65536", { port: 65_536 }],
    ["port is -1", { port: -1 }],
    ["concurrency is 10001", { concurrency: 10_001 }],
    ["queue is 10001", { queueMax: 10_001 }],
    ["most containers is 101", { containersMax: 101 }],
    ["fewest containers is 3; it must be between 0 and 2", { containersMin: 3, containersMax: 2 }],
    ["request timeout in milliseconds is 86400001", { requestTimeoutMs: 86_400_001 }],
    ["startup timeout in milliseconds is -5", { startupTimeoutMs: -5 }],
    ["most bytes of a body is 100000001", { bodyBytesMax: 100_000_001 }],
  ])("%s", (message, change) => {
    expect(refusal(change)).toContain(message);
  });
});

test("specifications are the same whatever the order of their fields, and once they came back from a row", () => {
  const spec = specOf("img-1", { env: { A: "1", B: "2" }, handler });
  expect(sameSpec(spec, JSON.parse(JSON.stringify(spec)))).toBe(true);
  expect(sameSpec(spec, { ...spec, env: { B: "2", A: "1" } })).toBe(true);
  expect(sameSpec(spec, { ...spec, command: ["a"] })).toBe(false);
  expect(sameSpec(spec, { ...spec, env: { A: "1", B: "3" } })).toBe(false);
  expect(sameSpec(spec, { ...spec, handler: undefined })).toBe(false);
});

test("a container of a deployment serves, and runs the function with as many calls as it may have", () => {
  const spec = specOf("img-1", { handler, command: [], concurrency: 3 });
  expect(containerOf(spec, { id: "d-1", workspaceId: "w" })).toMatchObject({
    deploymentId: "d-1",
    handler: { ...handler, concurrency: 3 },
    serving: { port: 8000, startupTimeoutMs: 60_000, concurrency: 3 },
    eager: false,
  });
});
