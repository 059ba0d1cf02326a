import { describe, expect, test } from "bun:test";
import { control, figure, median, percentile } from "./figure.ts";
import { tableOf } from "./table.ts";

describe("what samples come to", () => {
  test("the median of an even number lies between the two in the middle", () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([5, 1, 3])).toBe(3);
  });

  test("a percentile lies in proportion between its neighbours", () => {
    const values = Array.from({ length: 101 }, (_, index) => index);
    expect(percentile(values, 0.99)).toBe(99);
    expect(percentile([0, 10], 0.25)).toBe(2.5);
  });

  test("the control is how far the odd samples are from the even ones", () => {
    expect(control([1, 2, 1, 2])).toBe(2);
    expect(control([3, 3, 3, 3])).toBe(1);
  });
});

describe("a figure", () => {
  test("holds when it is as good as its goal, whichever way is better", () => {
    expect(figure("a", 1.2, "", 1.2).holds).toBe(true);
    expect(figure("a", 1.21, "", 1.2).holds).toBe(false);
    expect(figure("a", 0.89, "", 0.9, { better: "higher" }).holds).toBe(false);
    expect(figure("a", 1e9, "s", undefined).holds).toBe(true);
    expect(figure("a", Number.NaN, "", 1).holds).toBe(false);
  });

  test("has the control of its noisier side in the table, and no verdict without a goal", () => {
    const lines = tableOf([
      figure("ratio", 0.5, "", 0.4, {
        from: [
          [1, 1.5],
          [1, 1.1],
        ],
      }),
      figure("size", 3, "MB", undefined),
    ]).split("\n");
    expect(lines[1]?.split(/\s+/)).toEqual(["ratio", "0.5", "≤", "0.4", "1.5", "MISSED"]);
    expect(lines[2]).toMatch(/^size +3 MB$/);
  });
});
