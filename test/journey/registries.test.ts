import { expect, test } from "bun:test";
import { credentials, protocol, registries, substitutes } from "../kit/registry-table.ts";
import { isThere } from "../kit/table-rows.ts";

const tables = { protocol, registries, credentials, substitutes };

for (const [name, rows] of Object.entries(tables)) {
  test(`every row of the ${name} has tests, and they are there`, () => {
    const without = rows.filter(([, ...tests]) => tests.length === 0 || !tests.every(isThere));
    console.log(`${name}: ${rows.length - without.length}/${rows.length} rows`);
    expect(without.map(([fact, ...tests]) => [fact, ...tests.filter((one) => !isThere(one))])).toEqual([]);
  });
}
