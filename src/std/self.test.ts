import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { selfCommand } from "./self.ts";

test("names the running executable, and the entry point when that is bun", () => {
  const [executable, main, ...rest] = selfCommand();
  expect(executable).toBe(process.execPath);
  expect(main).toEndWith("/src/main.ts");
  expect(existsSync(main ?? "")).toBe(true);
  expect(rest).toEqual([]);
});
