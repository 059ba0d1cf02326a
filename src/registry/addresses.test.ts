import { beforeEach, describe, expect, test } from "bun:test";
import { Addresses } from "./addresses.ts";

const where = { registry: "registry.example", repository: "acme/app" };
const url = new URL("https://registry.example/v2/");
const { signal } = new AbortController();

describe("addresses", () => {
  let nowMs = 0;
  let asked = 0;
  let answer: () => Promise<readonly string[]>;
  const notFound = (): Promise<never> =>
    Promise.reject(Object.assign(new Error("no such name"), { code: "ENOTFOUND" }));
  const silent = (): Promise<never> => new Promise(() => undefined);
  const made = (): Addresses =>
    new Addresses(
      () => {
        asked += 1;
        return answer();
      },
      () => nowMs,
      50,
    );
  beforeEach(() => {
    nowMs = 0;
    asked = 0;
    answer = async () => ["8.8.8.8"];
  });

  test("are looked up once in half a minute", async () => {
    const addresses = made();
    for (const [atMs, times] of [
      [0, 1],
      [29_999, 1],
      [30_000, 2],
    ] as const) {
      nowMs = atMs;
      expect(await addresses.of(url, where, signal)).toEqual(["8.8.8.8"]);
      expect(asked).toBe(times);
    }
  });

  test("serve on while the resolver is away, and it is not waited for each time", async () => {
    const addresses = made();
    await addresses.of(url, where, signal);
    answer = silent;
    nowMs = 30_000;
    expect(await addresses.of(url, where, signal)).toEqual(["8.8.8.8"]);
    expect(await addresses.of(url, where, signal)).toEqual(["8.8.8.8"]);
    expect(asked).toBe(2);
    answer = async () => ["9.9.9.9"];
    nowMs = 60_000;
    expect(await addresses.of(url, where, signal)).toEqual(["9.9.9.9"]);
  });

  test("that are not found are an error, and are looked up anew", async () => {
    const addresses = made();
    answer = notFound;
    await expect(addresses.of(url, where, signal)).rejects.toMatchObject({
      code: "unreachable",
      message: "registry.example cannot be found (ENOTFOUND)",
    });
    answer = async () => ["8.8.8.8"];
    expect(await addresses.of(url, where, signal)).toEqual(["8.8.8.8"]);
  });

  test("that nobody depends on are not asked for again for a while when they are not found", async () => {
    const addresses = made();
    for (const missing of [notFound, silent]) {
      answer = missing;
      const before = asked;
      expect(await addresses.find(url, signal)).toBeUndefined();
      expect(await addresses.find(url, signal)).toBeUndefined();
      nowMs += 299_000;
      expect(await addresses.find(url, signal)).toBeUndefined();
      expect(asked).toBe(before + 1);
      nowMs += 1_000;
    }
    answer = async () => ["8.8.8.8"];
    expect(await addresses.find(url, signal)).toEqual(["8.8.8.8"]);
  });

  test("let go whoever leaves", async () => {
    const leaving = new AbortController();
    answer = silent;
    const found = made().find(url, leaving.signal);
    setImmediate(() => leaving.abort(new Error("gone")));
    await expect(found).rejects.toThrow("gone");
  });

  test("of an address are that address, and nobody is asked", async () => {
    expect(await made().of(new URL("https://[2606:4700::1111]:8443/"), where, signal)).toEqual([
      "2606:4700::1111",
    ]);
    expect(await made().of(new URL("https://0x08080808/"), where, signal)).toEqual(["8.8.8.8"]);
    expect(asked).toBe(0);
  });
});
