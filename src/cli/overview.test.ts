import { expect, test } from "bun:test";
import { commands } from "./app.ts";
import { groups, overview } from "./overview.ts";

test("the overview has each command once, with what it is for and the words that come after it", () => {
  const named = groups.flatMap(([, names]) => names);
  const all = commands.getAllEntries().map(({ name }) => name.original);
  expect([...named].sort()).toEqual([...all].sort());
  expect(overview()).not.toContain("undefined");
  expect(overview()).toMatch(/^ {2}workspace {3}Look after workspaces.*: ls, create, rm$/m);
  for (const line of overview().split("\n")) expect(line.length).toBeLessThanOrEqual(120);
});
