import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { statePaths } from "../layout.ts";
import { TestHost } from "../runtime.test-kit.ts";
import type { Runtime } from "../runtime.ts";
import { OutputReview } from "./output-review.ts";

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});
afterAll(() => host.close());

const id = (at: number) => `c-${String(at).padStart(16, "0")}`;

test("asks about the output of ended containers now and then, all of it in turn, and removes what nobody knows", async () => {
  const { logs } = statePaths(host.stateDir);
  const ids = Array.from({ length: 700 }, (_, at) => id(at));
  await Promise.all(ids.map((each) => writeFile(join(logs, `${each}.log`), "")));
  await writeFile(join(logs, `${id(1)}.log.1`), "");
  const held = new Set([id(0)]);
  const review = new OutputReview(runtime, (each) => held.has(each));
  const asked: string[][] = [];
  for (let beat = 0; beat < 36; beat += 1) {
    const now = await review.next();
    if (now.length > 0) asked.push([...now]);
  }
  expect(asked.map((each) => each.length)).toEqual([500, 199, 500]);
  expect(asked.slice(0, 2).flat()).toEqual(ids.slice(1));
  // The first is held by now: it was begun again meanwhile.
  held.add(id(2));
  await review.remove([id(1), id(2)]);
  const left = await readdir(logs);
  expect(left).toHaveLength(699);
  expect(left.filter((name) => name.startsWith(id(1)))).toEqual([]);
  expect(left).toContain(`${id(2)}.log`);
});
