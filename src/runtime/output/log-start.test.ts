import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ContainerPaths, containerPaths, statePaths } from "../layout.ts";
import { DirectoryWatch } from "./directory-watch.ts";
import { readLog } from "./log-reader.ts";
import type { LogPart } from "./log-start.ts";

let directory: string;
let paths: ContainerPaths;
let all: string[];
const began = Date.parse("2026-01-01T00:00:00Z");

/** A log as the monitor writes it: line n was written n milliseconds after the beginning. */
function entry(n: number, text: string, tag = "F"): string {
  const time = new Date(began + n).toISOString().replace("Z", "123456+00:00");
  return `${time} ${n % 3 === 0 ? "stderr" : "stdout"} ${tag} ${text}\n`;
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-log-"));
  const { logs } = { logs: directory };
  paths = containerPaths({ ...statePaths(directory), logs }, "c");
  all = Array.from({ length: 40_000 }, (_, n) => `line ${n} ${"x".repeat(n % 97)}`);
  const entries = all.map((text, n) => entry(n, text));
  await writeFile(paths.previousLog, entries.slice(0, 25_000).join(""));
  // The last line goes on.
  await writeFile(
    paths.log,
    `${entries.slice(25_000).join("")}${entry(40_000, "half ", "P")}${entry(40_001, "a line", "P")}`,
  );
});
afterAll(() => rm(directory, { recursive: true }));

async function read(part: LogPart): Promise<string[]> {
  const watch = new DirectoryWatch(directory);
  const text: string[] = [];
  for await (const { data } of readLog(paths, { watch, part })) text.push(Buffer.from(data).toString());
  return text.join("").split("\n");
}

test("begins so many lines before the end, also in the file before", async () => {
  const lines = [...all, "half a line"];
  for (const tail of [1, 2, 10, 1_000, 15_000, 15_001, 15_002, 20_000, 40_001, 50_000])
    expect(await read({ tail })).toEqual(lines.slice(-tail));
  expect(await read({ tail: 0 })).toEqual([""]);
});

test("begins at a time, also in the file before", async () => {
  for (const n of [0, 1, 24_999, 25_000, 25_001, 39_999]) {
    const seen = await read({ since: new Date(began + n) });
    expect(seen.slice(0, 2)).toEqual([...all, "half a line"].slice(n, n + 2));
    expect(seen.length).toBe(40_001 - n);
  }
  expect(await read({ since: new Date(began + 50_000) })).toEqual([""]);
  expect(await read({ since: new Date(began + 39_000), tail: 5 })).toEqual([...all.slice(-4), "half a line"]);
});
