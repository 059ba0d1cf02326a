import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { credentials, protocol, registries, substitutes } from "../kit/registry-table.ts";

const root = join(import.meta.dir, "../..");
const tables = { protocol, registries, credentials, substitutes };

/** The titles of a file's tests: what stands before the function of each. */
function titlesIn(file: string): ReadonlySet<string> {
  if (!existsSync(join(root, file))) return new Set();
  const text = readFileSync(join(root, file), "utf8");
  const titles = text.matchAll(/(["'`])([^\n]+?)\1,\s*(?:async\s*)?\(/g);
  return new Set([...titles].map((match) => match[2] ?? ""));
}

function isThere(test: string): boolean {
  const at = test.indexOf(": ");
  return titlesIn(test.slice(0, at)).has(test.slice(at + 2));
}

for (const [name, rows] of Object.entries(tables)) {
  test(`every row of the ${name} has tests, and they are there`, () => {
    const without = rows.filter(([, ...tests]) => tests.length === 0 || !tests.every(isThere));
    console.log(`${name}: ${rows.length - without.length}/${rows.length} rows`);
    expect(without.map(([fact, ...tests]) => [fact, ...tests.filter((one) => !isThere(one))])).toEqual([]);
  });
}
