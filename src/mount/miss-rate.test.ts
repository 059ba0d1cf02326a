import { expect, test } from "bun:test";
import { type LayerReads, MissRate } from "./miss-rate.ts";

const small: LayerReads = { spanCount: 100, has: () => false };
const large = (...there: number[]): LayerReads => ({ spanCount: 2000, has: (span) => there.includes(span) });

function misses(rate: MissRate, everyMs: number, count: number, layer = small): number[] {
  return Array.from({ length: count }, (_, number) => rate.missed(layer, number * 7, number * everyMs));
}

test("the more a program misses within two seconds, the more comes with a miss", () => {
  expect(misses(new MissRate(), 20, 10)).toEqual([0, 0, 0, 2, 2, 2, 2, 6, 6, 6]);
});

test("a reader that misses now and then is given what it asks for", () => {
  expect(misses(new MissRate(), 700, 10)).toEqual(Array.from({ length: 10 }, () => 0));
});

test("in a large layer it counts where something was read before", () => {
  const rate = new MissRate();
  misses(rate, 10, 8);
  expect(rate.missed(large(), 1000, 90)).toBe(0);
  expect(rate.missed(large(500, 1009), 1000, 100)).toBe(0);
  expect(rate.missed(large(1008), 1000, 110)).toBe(6);
  expect(rate.missed(large(992), 1000, 120)).toBe(6);
});

test("a start that is over leaves nothing behind", () => {
  const rate = new MissRate();
  misses(rate, 10, 20);
  expect(rate.missed(small, 1, 10_000)).toBe(0);
});
