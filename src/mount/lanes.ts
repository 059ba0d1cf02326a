import { logger } from "../std/log.ts";

/** Runs so many of the same lane at once. Never throws: what is fetched ahead is nobody's to miss; the signal's end is no error. */
export async function inLanes(count: number, lane: () => Promise<void>, signal: AbortSignal): Promise<void> {
  await Promise.all(Array.from({ length: count }, lane)).catch((thrown: unknown) => {
    if (!signal.aborted) logger("mount").error("fetching ahead stopped", { error: thrown });
  });
}
