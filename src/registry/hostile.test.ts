import { beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import type { HostileRun } from "./hostile-main.test-kit.ts";
import { publicAddresses, type RowResult } from "./hostile-row.test-kit.ts";
import { hostileRows, twinOf } from "./hostile-rows.test-kit.ts";

/** A network in which every address, public and private, is this machine's own. */
const everywhere =
  'ip link set lo up && ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo && exec "$@"';

describe("a hostile world", () => {
  let seen: HostileRun;
  beforeAll(async () => {
    const main = join(import.meta.dir, "hostile-main.test-kit.ts");
    const inside = ["unshare", "--net", "sh", "-c", everywhere, "sh", process.execPath, main];
    seen = JSON.parse((await run(inside, { timeoutMs: 100_000 })).stdout) as HostileRun;
  });

  test("has at least 150 ways to lead astray, each of its own", () => {
    expect(hostileRows.length).toBeGreaterThanOrEqual(150);
    expect(new Set(hostileRows.map(({ name }) => name)).size).toBe(hostileRows.length);
    expect(seen.rows.map(({ name }) => name)).toEqual(hostileRows.map(({ name }) => name));
  });

  test("gets no byte of a credential at a wrong host", () => {
    expect(seen.rows.filter(({ wrong }) => wrong.length > 0)).toEqual([]);
  });

  test("gets no connection to a private address", () => {
    const isPublic = (address: string): boolean => publicAddresses.includes(address);
    expect(seen.rows.filter(({ connects }) => !connects.every(isPublic))).toEqual([]);
    // The kernel counts also what nobody was there to take.
    expect(seen.opens).toBe(seen.taken);
    expect(seen.taken).toBeGreaterThan(50);
  });

  test("has each of its ways end as it must", () => {
    expect(seen.rows.map(shown)).toEqual(hostileRows.map((row, at) => expected(row, seen.rows[at])));
  });

  test("gets nothing through the operator's proxy that it does not get without", () => {
    expect(seen.proxied.filter(({ wrong }) => wrong.length > 0)).toEqual([]);
    const more = seen.proxied.filter(({ outcome, told }, at) => {
      const direct = seen.rows[at];
      return (
        (outcome === "served" && direct?.outcome !== "served") ||
        told.some((one) => !direct?.told.includes(one))
      );
    });
    // What DNS does not know here, the proxy may.
    expect(more.map(({ name }) => name)).toEqual(["a name that leads nowhere"]);
    // Nothing goes around it: what came to the world came from the proxy, which finds everybody at one address.
    expect([...new Set(seen.proxied.flatMap(({ connects }) => connects))]).toEqual(["8.8.8.8"]);
    expect(seen.proxied.filter(({ outcome }) => outcome === "served").length).toBeGreaterThan(20);
  });

  test("is reached where the operator allows it, by the same ways", () => {
    const twins = hostileRows.flatMap(twinOf);
    expect(twins.length).toBeGreaterThan(80);
    expect(seen.twins.map(shown)).toEqual(twins.map((row, at) => expected(row, seen.twins[at])));
    // Without this the tests above could not fail.
    expect(
      seen.twins.filter(({ connects }) => !connects.every((one) => publicAddresses.includes(one))).length,
    ).toBeGreaterThan(50);
    expect(seen.twins.flatMap(({ wrong }) => wrong)).toEqual([]);
  });
});

function shown({ name, outcome, told, connects }: RowResult): object {
  return { name, outcome, told, connects };
}

/** What the row says; what it does not say is as it was. */
function expected(row: (typeof hostileRows)[number], result: RowResult | undefined): object {
  const connects = row.reached === undefined ? result?.connects : [...row.reached].sort();
  return { name: row.name, outcome: row.outcome, told: row.told ?? [], connects };
}
