import { checkLimit, type IndexLimits } from "./limits.ts";

const limitsOf = {
  layer: { memory: "layerMemoryBytesMax", cpu: "layerCpuSecondsMax", what: "indexing the layer" },
  merge: { memory: "mergeMemoryBytesMax", cpu: "mergeCpuSecondsMax", what: "merging the layers" },
} as const;

/**
 * Holds this process, a child of the index room, to what its work may take. To be called between two small steps: what one
 * of them can add is not seen before it is over.
 *
 * @throws {IndexError} `limit_exceeded`
 */
export function checkOwnUse(work: keyof typeof limitsOf, limits: IndexLimits): void {
  const { memory, cpu, what } = limitsOf[work];
  checkLimit(limits, memory, process.memoryUsage.rss(), () => `the memory of ${what}`);
  const { user, system } = process.cpuUsage();
  checkLimit(limits, cpu, Math.round((user + system) / 1e4) / 100, () => `the seconds of ${what}`);
}
