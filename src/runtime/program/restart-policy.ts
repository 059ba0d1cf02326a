import { z } from "zod";
import type { ExitStatus } from "../spec.ts";

const delayFirstMs = 100;
const delayMostMs = 60_000;
/** A program that ran so long is not at fault for the ends before. */
const settledMs = 10_000;

/** Whether a program that has ended is started again, and what came of that so far; kept with the container's state. */
export const restartSchema = z.object({
  kind: z.enum(["no", "on-failure", "always"]),
  /** Of `on-failure`; 0: without end. */
  retriesMax: z.number().int(),
  /** How often it was started again. */
  count: z.number().int(),
  /** The last wait before that; 0: there was none. */
  delayMs: z.number().int(),
});

export type Restarts = z.infer<typeof restartSchema>;

/**
 * What follows a program's end: `undefined`, or a wait and another start. The wait doubles from 100 ms to a minute, and begins
 * anew after a program that ran for 10 s, as Docker has it.
 *
 * @param ranMs how long it ran
 */
export function nextRestart(
  restarts: Restarts,
  { exitCode, reason }: Pick<ExitStatus, "exitCode" | "reason">,
  ranMs: number,
): Restarts | undefined {
  const { kind, retriesMax, count } = restarts;
  // Nobody knows how it ended: it is not sure that it has.
  if (kind === "no" || reason !== undefined) return undefined;
  if (kind === "on-failure" && exitCode === 0) return undefined;
  if (kind === "on-failure" && retriesMax > 0 && count >= retriesMax) return undefined;
  const delayMs = ranMs >= settledMs ? delayFirstMs : Math.min(delayMostMs, restarts.delayMs * 2);
  return { ...restarts, count: count + 1, delayMs: delayMs || delayFirstMs };
}
