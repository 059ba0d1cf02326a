import { expect, test } from "bun:test";
import { Throttle } from "./throttle.ts";

test("lets the same thing through once in its time, and others at once", () => {
  let now = 1_000;
  const throttle = new Throttle(() => now);
  const lets = (key: string) => throttle.lets(key, 60_000);
  expect([lets("a"), lets("a"), lets("b")]).toEqual([true, false, true]);
  now += 59_999;
  expect(lets("a")).toBe(false);
  now += 1;
  expect([lets("a"), lets("a")]).toEqual([true, false]);
});

test("remembers the latest only, however many there are", () => {
  const throttle = new Throttle(() => 0);
  for (let key = 0; key <= 4096; key += 1) expect(throttle.lets(`address ${key}`, 60_000)).toBe(true);
  expect(throttle.lets("address 4096", 60_000)).toBe(false);
  expect(throttle.lets("address 0", 60_000)).toBe(true);
});
