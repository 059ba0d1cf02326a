import { expect, test } from "bun:test";
import { attacks } from "../kit/security-table.ts";
import { isThere } from "../kit/table-rows.ts";

for (const { attack, defences } of attacks) {
  test(`${attack}: each defence has tests, and they are there`, () => {
    expect(defences.length).toBeGreaterThan(0);
    const without = defences.filter(([, ...tests]) => tests.length === 0 || !tests.every(isThere));
    expect(without.map(([defence, ...tests]) => [defence, ...tests.filter((one) => !isThere(one))])).toEqual(
      [],
    );
  });
}

test("a defence whose test is not there is told from one whose test is", () => {
  expect(isThere("src/secret/seal.test.ts: refuses what has expired")).toBe(true);
  expect(isThere("src/secret/seal.test.ts: refuses nothing")).toBe(false);
  expect(isThere("src/secret/no-such.test.ts: refuses what has expired")).toBe(false);
});
