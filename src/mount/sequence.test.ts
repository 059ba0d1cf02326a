import { expect, test } from "bun:test";
import { SequenceDetector } from "./sequence.ts";

function miss(detector: SequenceDetector, span: number): number {
  const window = detector.missed(span);
  detector.requested(span, { first: span, last: span + window - 1 });
  return window;
}

test("a reader that goes on where it was is read ahead of by 1, 2, 4, 8 spans and no more", () => {
  const detector = new SequenceDetector(8);
  expect([0, 1, 3, 7, 15].map((span) => miss(detector, span))).toEqual([1, 2, 4, 8, 8]);
});

test("scattered misses are answered alone", () => {
  const detector = new SequenceDetector(8);
  expect([5, 90, 40, 8, 60].map((span) => miss(detector, span))).toEqual([1, 1, 1, 1, 1]);
});

test("two sequential readers of one layer are both seen", () => {
  const detector = new SequenceDetector(8);
  expect([0, 100, 1, 101, 3, 103].map((span) => miss(detector, span))).toEqual([1, 1, 2, 2, 4, 4]);
});

test("a reader that catches up with its request is given the next stretch at once", () => {
  const detector = new SequenceDetector(8);
  for (const span of [0, 1, 3]) miss(detector, span);
  expect(detector.caughtUp({ first: 3, last: 6 })).toEqual({ from: 7, spans: 8 });
  expect(detector.caughtUp({ first: 3, last: 6 })).toBeUndefined();
});

test("who may want one file only is not read ahead of before it asks", () => {
  const detector = new SequenceDetector(8);
  for (const span of [0, 1]) miss(detector, span);
  expect(detector.caughtUp({ first: 1, last: 2 })).toBeUndefined();
});
