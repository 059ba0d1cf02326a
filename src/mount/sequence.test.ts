import { expect, test } from "bun:test";
import { SequenceDetector } from "./sequence.ts";

function miss(detector: SequenceDetector, span: number): number {
  const window = detector.missed(span);
  detector.requested(span, { first: span, last: span + window - 1 });
  return window;
}

test("a reader that goes on where it was is read ahead of by 1, 2, 4, 6 spans and no more at first", () => {
  const detector = new SequenceDetector(24);
  expect([0, 1, 3, 7, 13, 19].map((span) => miss(detector, span))).toEqual([1, 2, 4, 6, 6, 6]);
});

test("who has read far is read ahead of by an eighth of it, up to the limit", () => {
  const detector = new SequenceDetector(24);
  let next = 0;
  let window = 0;
  while (next < 100) next += window = miss(detector, next);
  expect(window).toBe(11);
  while (next < 1000) next += window = miss(detector, next);
  expect(window).toBe(24);
});

test("scattered misses are answered alone", () => {
  const detector = new SequenceDetector(24);
  expect([5, 90, 40, 8, 60].map((span) => miss(detector, span))).toEqual([1, 1, 1, 1, 1]);
});

test("two sequential readers of one layer are both seen", () => {
  const detector = new SequenceDetector(24);
  expect([0, 100, 1, 101, 3, 103].map((span) => miss(detector, span))).toEqual([1, 1, 2, 2, 4, 4]);
});

test("while a reader goes through what is on its way, as much as its window is kept on its way", () => {
  const detector = new SequenceDetector(24);
  for (const span of [0, 1, 3]) miss(detector, span);
  // Asked for up to 6.
  expect(detector.reached(3)).toBeUndefined();
  expect(detector.reached(4)).toBeUndefined();
  expect(detector.reached(5)).toEqual({ from: 7, spans: 4 });
  expect(detector.reached(5)).toBeUndefined();
  expect(detector.reached(8)).toEqual({ from: 11, spans: 3 });
  // What was asked for, but is not on its way yet when the reader is there, is the same reader's.
  expect(miss(detector, 12)).toBe(6);
});

test("a request that was cut short is continued at its end", () => {
  const detector = new SequenceDetector(24);
  for (const span of [0, 1, 3]) miss(detector, span);
  expect(detector.missed(7)).toBe(6);
  detector.requested(7, { first: 7, last: 9 });
  expect(detector.reached(7)).toEqual({ from: 10, spans: 3 });
});

test("who may want one file only is not read ahead of before it asks", () => {
  const detector = new SequenceDetector(24);
  for (const span of [0, 1]) miss(detector, span);
  expect(detector.reached(2)).toBeUndefined();
});
