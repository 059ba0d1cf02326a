import { ContainerError } from "./error.ts";

/**
 * The life of a container, and the only place that says which step may follow which:
 *
 * ```
 * pending → scheduled → preparing → running → stopping → exited | failed | stopped
 *    ↑__________|  (the worker was lost before it began; attempt + 1)
 * ```
 * Each state before `running` may also end in `failed` or `stopped`, and `running` in `exited`, `failed` or `stopped`.
 */
export const containerStates = [
  "pending",
  "scheduled",
  "preparing",
  "running",
  "stopping",
  "exited",
  "failed",
  "stopped",
] as const;

export type ContainerState = (typeof containerStates)[number];

const next: Readonly<Record<ContainerState, readonly ContainerState[]>> = {
  pending: ["scheduled", "failed", "stopped"],
  scheduled: ["preparing", "pending", "failed", "stopped"],
  preparing: ["running", "failed", "stopped"],
  running: ["stopping", "exited", "failed", "stopped"],
  stopping: ["exited", "failed", "stopped"],
  exited: [],
  failed: [],
  stopped: [],
};

/** Whether a container may step from one state to another. Staying is no step. */
export function isLegalTransition(from: ContainerState, to: ContainerState): boolean {
  return next[from].includes(to);
}

/** Throws ContainerError `illegal_transition` unless the step is legal. */
export function assertTransition(from: ContainerState, to: ContainerState): void {
  if (isLegalTransition(from, to)) return;
  throw new ContainerError("illegal_transition", `a container cannot go from ${from} to ${to}`);
}

/** Whether nothing can follow. */
export function isEnded(state: ContainerState): boolean {
  return next[state].length === 0;
}

/** The states in which a container holds (or is about to hold) a worker's resources. */
export const placedStates: readonly ContainerState[] = ["scheduled", "preparing", "running", "stopping"];

/** The states in which a container has not ended. */
export const livingStates: readonly ContainerState[] = ["pending", ...placedStates];

/** The state that a text names, as it stands in a row or on the wire. */
export function parseContainerState(text: string): ContainerState {
  const state = containerStates.find((known) => known === text);
  if (state === undefined)
    throw new ContainerError("illegal_transition", `${text} is no state of a container`);
  return state;
}
