import type { Logger } from "../std/log.ts";

/** A part of a start. `undo` is safe without `do`, safe twice, and safe after a `do` that failed half-way. */
export interface Step {
  readonly name: string;
  do(): Promise<void>;
  undo(): Promise<void>;
}

/** Does the steps in order. When one fails or the signal fires between two, what was done is undone, last first. */
export async function doSteps(steps: readonly Step[], signal: AbortSignal, logger: Logger): Promise<void> {
  for (const [index, step] of steps.entries()) {
    try {
      signal.throwIfAborted();
      await step.do();
    } catch (error) {
      await undoSteps(steps.slice(0, index + 1)).catch((failed: unknown) =>
        logger.error("a failed start left something behind", { step: step.name, error: failed }),
      );
      throw error;
    }
  }
}

/** Undoes the steps, last first; stops at the first that fails, because what is below depends on it. */
export async function undoSteps(steps: readonly Step[]): Promise<void> {
  for (const step of steps.toReversed()) await step.undo();
}
