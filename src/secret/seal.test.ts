import { expect, test } from "bun:test";
import { inspect } from "node:util";
import { Redacted } from "../std/redacted.ts";
import type { SecretError } from "./error.ts";
import { generateBootKey, type SealContext, sealTo } from "./seal.ts";

const value = new Redacted('{"registry":"ghcr.io","credentials":{"TOKEN":"canary-5521"}}');

function context(change: Partial<SealContext> = {}): SealContext {
  return {
    requestId: "request-1",
    containerId: "c-1",
    workerId: "worker-1",
    bootNonce: "boot-1",
    expiresAt: new Date(Date.now() + 60_000),
    ...change,
  };
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown as SecretError,
  );
  expect(inspect(error, { depth: 10 })).not.toContain("canary");
  return error?.code ?? "opened";
}

test("the worker opens what was sealed to its boot key, and the sealed text shows nothing", async () => {
  const key = await generateBootKey();
  expect(key.publicKey).toHaveLength(32);
  const bound = context();
  const [sealed, again] = [
    await sealTo(key.publicKey, value, bound),
    await sealTo(key.publicKey, value, bound),
  ];
  expect(sealed).not.toBe(again);
  expect(Buffer.from(sealed, "base64").toString("latin1")).not.toContain("canary");
  const opened = await key.open(sealed, bound);
  expect(`${opened}`).toBe("[redacted]");
  expect(opened.expose()).toBe(value.expose());
});

test("opens only in the context that it was sealed for", async () => {
  const [key, other] = [await generateBootKey(), await generateBootKey()];
  const bound = context();
  const sealed = await sealTo(key.publicKey, value, bound);
  const changes: Partial<SealContext>[] = [
    { requestId: "request-2" },
    { containerId: "c-2" },
    { workerId: "worker-2" },
    { bootNonce: "boot-2" },
    { expiresAt: new Date(bound.expiresAt.getTime() + 1) },
  ];
  for (const change of changes)
    expect(await codeOf(key.open(sealed, { ...bound, ...change }))).toBe("undecryptable");
  expect(await codeOf(other.open(sealed, bound))).toBe("undecryptable");
  // What failed has not used the request up.
  expect(await codeOf(key.open(sealed, bound))).toBe("opened");
});

test("opens once for each request, also when asked twice at the same time", async () => {
  const key = await generateBootKey();
  const bound = context();
  const sealed = await sealTo(key.publicKey, value, bound);
  const codes = await Promise.all([codeOf(key.open(sealed, bound)), codeOf(key.open(sealed, bound))]);
  expect(codes.sort()).toEqual(["opened", "replayed"]);
  expect(await codeOf(key.open(await sealTo(key.publicKey, value, bound), bound))).toBe("replayed");
  const next = context({ requestId: "request-2" });
  expect(await codeOf(key.open(await sealTo(key.publicKey, value, next), next))).toBe("opened");
});

test("refuses what has expired", async () => {
  const key = await generateBootKey();
  for (const expiresAt of [new Date(Date.now() - 1), new Date(Number.NaN)]) {
    const bound = context({ expiresAt });
    const sealed = Number.isNaN(expiresAt.getTime()) ? "AA==" : await sealTo(key.publicKey, value, bound);
    expect(await codeOf(key.open(sealed, bound))).toBe("expired");
  }
});

test("refuses what is changed, cut short, of another format or far too long", async () => {
  const key = await generateBootKey();
  const bound = context();
  const bytes = Buffer.from(await sealTo(key.publicKey, value, bound), "base64");
  const version = Buffer.from(bytes).fill(2, 0, 1);
  const flipped = Buffer.from(bytes);
  flipped[40] = (flipped[40] ?? 0) ^ 1;
  for (const broken of [
    version,
    flipped,
    bytes.subarray(0, 40),
    bytes.subarray(0, 10),
    Buffer.alloc(300_000, 1),
  ]) {
    expect(await codeOf(key.open(broken.toString("base64"), bound))).toBe("undecryptable");
  }
  expect(await codeOf(key.open("", bound))).toBe("undecryptable");
});

test("does not seal to what is no key", async () => {
  expect(await codeOf(sealTo(new Uint8Array(31), value, context()))).toBe("bad_value");
});
