import { expect, test } from "bun:test";
import { spanBytes } from "../index/types.ts";
import { growRun, runRange } from "./span-run.ts";

/** Spans of ten bytes each, which inflate well; neighbours share one byte, as those of a gzip layer may. */
const table = {
  spanCount: 8,
  span: (index: number) => ({
    compOffset: index * 9,
    compLength: 10,
    tarOffset: index * spanBytes,
    tarLength: spanBytes,
  }),
};

function grow(
  span: number,
  options: { spansMin?: number; waiting?: number[]; there?: number[]; rangeBytes?: number },
) {
  return growRun(table, span, {
    rangeBytes: options.rangeBytes ?? 1000,
    spansMin: options.spansMin ?? 1,
    fetchable: (index) => !options.there?.includes(index),
    waitedFor: (index) => options.waiting?.includes(index) ?? false,
  });
}

test("a lone miss asks for its span alone", () => {
  expect(grow(3, {})).toEqual({ first: 3, last: 3 });
});

test("a run takes in neighbours that somebody waits for, on both sides", () => {
  expect(grow(3, { waiting: [1, 2, 3, 4, 6] })).toEqual({ first: 1, last: 4 });
});

test("a run reads ahead up to what is there already and up to the layer's end", () => {
  expect(grow(3, { spansMin: 4, there: [5] })).toEqual({ first: 3, last: 4 });
  expect(grow(6, { spansMin: 8 })).toEqual({ first: 6, last: 7 });
});

test("a run keeps to the size of a request, but for a span that is larger", () => {
  expect(grow(2, { spansMin: 8, rangeBytes: 28 })).toEqual({ first: 2, last: 4 });
  expect(grow(2, { spansMin: 8, rangeBytes: 5 })).toEqual({ first: 2, last: 2 });
});

test("the range of a run goes from its first byte to its last, shared bytes once", () => {
  expect(runRange(table, { first: 2, last: 4 })).toEqual({ start: 18, end: 46 });
});

/** Spans of `compLength` bytes, which inflate to `tarLength`. */
function tableOf(compLength: number, tarLength: number) {
  const span = (index: number) => ({
    compOffset: index * compLength,
    compLength,
    tarOffset: index * tarLength,
    tarLength,
  });
  return { spanCount: 10_000, span };
}

test("a lone miss of a small span asks for as much as an ordinary span is, compressed or inflated", () => {
  const alone = { rangeBytes: 8 * 1024 * 1024, fetchable: () => true, waitedFor: () => false };
  const grown = (compLength: number, tarLength: number, spansMin: number) => {
    const { first, last } = growRun(tableOf(compLength, tarLength), 5, { ...alone, spansMin });
    expect(first).toBe(5);
    return last - first + 1;
  };
  expect(grown(4096, 8192, 1)).toBe(128);
  expect(grown(100, 65_536, 1)).toBe(32);
  expect(grown(600_000, 4_000_000, 1)).toBe(1);
  // A sequential reader is read ahead of in the same measure, within the size of a request.
  expect(grown(4096, 8192, 4)).toBe(512);
  expect(grown(4096, 8192, 1000)).toBe(2048);
});

test("a miss of a small span before what is there brings what lies before it", () => {
  const table = tableOf(4096, 8192);
  const options = { rangeBytes: 8 * 1024 * 1024, spansMin: 1, waitedFor: () => false };
  expect(growRun(table, 500, { ...options, fetchable: (index) => index <= 500 })).toEqual({
    first: 373,
    last: 500,
  });
  expect(growRun(table, 500, { ...options, fetchable: (index) => index <= 540 && index > 450 })).toEqual({
    first: 451,
    last: 540,
  });
  // The spans of a layer that has no table of its own are ordinary, but for its last.
  const ordinary = tableOf(100_000, spanBytes);
  expect(growRun(ordinary, 500, { ...options, fetchable: (index) => index <= 500 })).toEqual({
    first: 500,
    last: 500,
  });
});
