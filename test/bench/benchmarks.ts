import { coldStart } from "./cold-start.ts";
import type { Benchmark } from "./figure.ts";
import { handover } from "./handover.ts";
import { indexTime } from "./index-time.ts";
import { model } from "./model.ts";
import { readAll } from "./read-all.ts";
import { startLatency } from "./start-latency.ts";
import { warmRatios } from "./warm-ratios.ts";

/** All benchmarks, in the order in which they run. */
export const benchmarks: readonly Benchmark[] = [
  coldStart,
  startLatency,
  readAll,
  model,
  warmRatios,
  indexTime,
  handover,
];
