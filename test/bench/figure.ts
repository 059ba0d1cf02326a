/** One figure of `dist/bench.json`. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly goal: number;
  readonly better: "lower" | "higher";
  /** Whether the value is as good as the goal. */
  readonly holds: boolean;
  /** What it was measured from: samples, the other side of a ratio, the control. */
  readonly detail: Readonly<Record<string, unknown>>;
}

/** A benchmark gives one or more figures. */
export interface Benchmark {
  readonly name: string;
  readonly about: string;
  run(tell: (text: string) => void): Promise<Figure[]>;
}

export function figure(
  name: string,
  value: number,
  unit: string,
  goal: number,
  detail: Record<string, unknown> = {},
  better: "lower" | "higher" = "lower",
): Figure {
  const rounded = Number(value.toPrecision(4));
  return {
    name,
    value: rounded,
    unit,
    goal,
    better,
    holds: better === "lower" ? rounded <= goal : rounded >= goal,
    detail,
  };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}

/** Samples as they go into a detail: rounded, with their median. */
export function samples(values: readonly number[]): { median: number; samples: number[] } {
  return {
    median: Number(median(values).toPrecision(4)),
    samples: values.map((value) => Number(value.toPrecision(4))),
  };
}

/**
 * How far two halves of samples of the very same thing are apart (the odd against the even ones), as a ratio of medians:
 * 1 for none. A difference between two things that is not larger than this is noise.
 */
export function control(values: readonly number[]): number {
  const odd = median(values.filter((_, index) => index % 2 === 1));
  const even = median(values.filter((_, index) => index % 2 === 0));
  return Number((Math.max(odd, even) / Math.min(odd, even)).toPrecision(4));
}
