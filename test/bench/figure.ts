import type { Stage } from "./stage.ts";

/** One figure of `dist/bench.json`: a row of the table. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** Absent: the figure is for information, next to one that has a goal. */
  readonly goal?: number;
  readonly better: "lower" | "higher";
  /** Whether the value is as good as the goal. */
  readonly holds: boolean;
  /** A/A control: how far two halves of the same samples are apart ({@link control}); a smaller difference is noise. */
  readonly control?: number;
  /** What it was measured from: samples, the other side of a ratio. */
  readonly detail: Readonly<Record<string, unknown>>;
}

/** What a benchmark gets: the stage, how much to do, and whom to tell. */
export interface Run {
  readonly stage: Stage;
  /** Rounds for this run: the benchmark's own number unless the command line gave one. */
  rounds(usual: number): number;
  /** Whether the largest sizes are wanted. */
  readonly full: boolean;
  tell(text: string): void;
}

/** A benchmark gives one or more figures. */
export interface Benchmark {
  readonly name: string;
  readonly about: string;
  run(run: Run): Promise<Figure[]>;
}

/** What a figure may have beside its value. */
interface More {
  /** Samples of the two sides of a ratio, or of the one: their control is shown. */
  readonly from?: readonly (readonly number[])[];
  readonly better?: "lower" | "higher";
  readonly detail?: Readonly<Record<string, unknown>>;
}

/** A figure; a goal of `undefined` is none. */
export function figure(
  name: string,
  value: number,
  unit: string,
  goal: number | undefined,
  { from = [], better = "lower", detail = {} }: More = {},
): Figure {
  const rounded = Number(value.toPrecision(4));
  const controls = from.filter((values) => values.length > 1).map(control);
  return {
    name,
    value: rounded,
    unit,
    ...(goal === undefined ? {} : { goal }),
    better,
    holds: goal === undefined || (better === "lower" ? rounded <= goal : rounded >= goal),
    ...(controls.length === 0 ? {} : { control: Math.max(...controls) }),
    detail,
  };
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** The value below which a share of the values is; between two of them for the median of an even number. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const [lower, upper] = [sorted[Math.floor(place)] ?? Number.NaN, sorted[Math.ceil(place)] ?? Number.NaN];
  return lower + (upper - lower) * (place - Math.floor(place));
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
  return Number((Math.max(odd, even) / Math.min(odd, even)).toPrecision(3));
}
