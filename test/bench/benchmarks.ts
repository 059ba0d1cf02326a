import { coldStart } from "./cold-start.ts";
import { endpointStart } from "./endpoint-start.ts";
import type { Benchmark } from "./figure.ts";
import { gateway } from "./gateway.ts";
import { growth } from "./growth.ts";
import { handover } from "./handover.ts";
import { indexTime } from "./index-time.ts";
import { loopLag } from "./loop-lag.ts";
import { model } from "./model.ts";
import { noIndex } from "./no-index.ts";
import { readAll } from "./read-all.ts";
import { startLatency } from "./start-latency.ts";
import { transfer } from "./transfer.ts";
import { warmRatios } from "./warm-ratios.ts";
import { workerMemory } from "./worker-memory.ts";

/** All benchmarks, in the order in which they run. */
export const benchmarks: readonly Benchmark[] = [
  coldStart,
  startLatency,
  endpointStart,
  transfer,
  noIndex,
  readAll,
  model,
  warmRatios,
  indexTime,
  growth,
  loopLag,
  workerMemory,
  handover,
  gateway,
];
