import { CodedError } from "../std/error.ts";
import type { ContainerChanges } from "./changes.ts";
import type { Container } from "./container.ts";
import type { ContainerStore } from "./store.ts";

/** A database that restarts is there again within this. */
const databasePatienceMs = 30_000;

export interface WatchDependencies {
  readonly containers: Pick<ContainerStore, "get">;
  readonly changes: ContainerChanges;
}

/** A container as it was found. */
export interface Look {
  readonly container: Container;
  /** False: nobody said that it changed, and it is as it was. */
  readonly changed: boolean;
}

/**
 * A container at once, after each change, and now and then without one. A database that goes away meanwhile is waited for.
 * Ends when the signal aborts.
 *
 * @throws ContainerError `not_found`; DbError
 */
export async function* looksAt(
  { containers, changes }: WatchDependencies,
  { workspaceId, id }: Pick<Container, "workspaceId" | "id">,
  signal: AbortSignal,
): AsyncGenerator<Look> {
  let last: Container | undefined;
  let seenAt = performance.now();
  for await (const look of changes.of(id, signal)) {
    const container = await containers.get(workspaceId, id).catch((error: unknown) => {
      const waits = last !== undefined && performance.now() - seenAt < databasePatienceMs;
      if (waits && isDatabaseAway(error)) return undefined;
      throw error;
    });
    if (container === undefined) continue;
    seenAt = performance.now();
    const changed =
      look === "changed" ||
      last?.state !== container.state ||
      last.updatedAt.getTime() !== container.updatedAt.getTime();
    last = container;
    yield { container, changed };
  }
}

/** Whether a failure is that of a database that cannot be reached now. */
export function isDatabaseAway(error: unknown): boolean {
  return error instanceof CodedError && error.name === "DbError" && error.code === "unavailable";
}
