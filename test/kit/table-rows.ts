import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "../..");

/** The titles of a file's tests: what stands before the function of each. */
function titlesIn(file: string): ReadonlySet<string> {
  if (!existsSync(join(root, file))) return new Set();
  const text = readFileSync(join(root, file), "utf8");
  const titles = text.matchAll(/(["'`])([^\n]+?)\1,\s*(?:async\s*)?\(/g);
  return new Set([...titles].map((match) => match[2] ?? ""));
}

/** Whether a test, as `FILE: TITLE`, is there. */
export function isThere(test: string): boolean {
  const at = test.indexOf(": ");
  return titlesIn(test.slice(0, at)).has(test.slice(at + 2));
}
