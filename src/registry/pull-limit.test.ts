import { describe, expect, test } from "bun:test";
import { describeLeft, describeLimit, isLow, parsePullLimit } from "./pull-limit.ts";

const parse = (limit: string | undefined, remaining: string | undefined, source?: string) =>
  parsePullLimit(
    new Headers({
      ...(limit === undefined ? {} : { "RateLimit-Limit": limit }),
      ...(remaining === undefined ? {} : { "RateLimit-Remaining": remaining }),
      ...(source === undefined ? {} : { "Docker-RateLimit-Source": source }),
    }),
    "docker.io",
  );

describe("a limit on pulls", () => {
  test.each([
    ["100;w=21600", "97;w=21600", [100, 97, 21_600]],
    [" 200 ; w=3600 ", "0", [200, 0, 3600]],
    ["10", "9", [10, 9, 0]],
    ["10", "9;w=60", [10, 9, 60]],
  ])("of %p with %p left is read", (limit, remaining, [count, left, window]) => {
    expect(parse(limit, remaining)).toMatchObject({ limit: count, remaining: left, windowSeconds: window });
  });

  test.each([
    [undefined, "9"],
    ["10", undefined],
    ["-1", "9"],
    ["ten", "nine"],
    ["1e9", "9"],
    ["99999999999", "9"],
    ["100;w=21600;policy=x", "9"],
  ])("of %p with %p left is none", (limit, remaining) => {
    expect(parse(limit, remaining)).toBeUndefined();
  });

  test("says whether the account or the address is counted, and not which", () => {
    const byAccount = parse("100;w=21600", "5", "8f2ab7ad-1c3b-4a4e-9f0e-1f2a3b4c5d6e");
    const byAddress = parse("100;w=5400", "50", "203.0.113.7");
    expect([byAccount, byAddress].map((one) => one && describeLimit(one))).toEqual([
      "100 pulls in 6 h, counted by the account",
      "100 pulls in 90 min, counted by this machine's address",
    ]);
    expect(JSON.stringify([byAccount, byAddress])).not.toMatch(/203|8f2ab7ad/);
    expect([byAccount, byAddress].map((one) => one && isLow(one))).toEqual([true, false]);
  });

  test("is told in one line", () => {
    expect(
      [parse("100;w=21600", "97"), parse("100;w=90", "2", "203.0.113.7")].map(
        (one) => one && describeLeft(one),
      ),
    ).toEqual([
      "docker.io: 97 of 100 pulls left in 6 h",
      "docker.io: 2 of 100 pulls left in 90 s; a credential has a limit of its own (--creds)",
    ]);
  });
});
