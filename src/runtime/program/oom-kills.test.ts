import { expect, test } from "bun:test";
import { OomKills } from "./oom-kills.ts";

const minuteMs = 60_000;
const soon = () => new Date(Date.now() + 10);
const later = () => new Date(Date.now() + minuteMs);

test("tells a program from one that ends while nothing is killed for want of memory", async () => {
  let kills = 1;
  const oom = new OomKills(async () => kills);
  const watch = await oom.watch();
  expect(await watch.killed()).toBe(false);
  kills = 2;
  expect(await watch.killed()).toBe(true);
});

test("what ended a program in a container is no reason of its own end, but for one in the same moment", async () => {
  let kills = 0;
  const oom = new OomKills(async () => kills);
  expect(await oom.endedIt(later())).toBe(false);
  const watch = await oom.watch();
  kills = 1;
  expect(await oom.endedIt(later())).toBe(true);
  await watch.killed();
  expect(await oom.endedIt(later())).toBe(false);
  expect(await oom.endedIt(soon())).toBe(true);
  kills = 2;
  expect(await oom.endedIt(later())).toBe(true);
});
