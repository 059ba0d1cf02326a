import type { ContainerChanges } from "./changes.ts";
import type { Container } from "./container.ts";
import { ContainerError } from "./error.ts";
import { isEnded } from "./state.ts";
import type { ContainerStore } from "./store.ts";
import { type WorkerBoot, type WorkerClients, workerFailure } from "./worker-client.ts";

/** Between the stop signal and SIGKILL. */
export const stopTimeoutMs = 10_000;

export interface StopDependencies {
  readonly containers: ContainerStore;
  readonly changes: ContainerChanges;
  readonly workers: WorkerClients;
  /** The boot of a worker that serves now. */
  readonly findWorker: (id: string) => Promise<WorkerBoot | undefined>;
}

/**
 * Stops a container wherever it is on its way, and waits until it has ended. Stopping one that has ended is no error.
 *
 * @throws DOMException `AbortError` when the signal comes first
 */
export async function stopContainer(
  { containers, changes, workers, findWorker }: StopDependencies,
  container: Container,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Container> {
  let asked: number | undefined;
  for await (const _ of changes.of(container.id, signal)) {
    const current = await containers.get(container.workspaceId, container.id);
    if (isEnded(current.state)) return current;
    if (current.state === "pending") {
      const reason = "stopped before it was scheduled";
      await tryTransition(() =>
        containers.transition(current.id, { from: ["pending"] }, "stopped", { reason }),
      );
      continue;
    }
    if (asked === current.attempt) continue;
    const worker = current.workerId === undefined ? undefined : await findWorker(current.workerId);
    if (worker === undefined) continue;
    asked = current.attempt;
    try {
      await workers.to(worker).stopContainer({ containerId: current.id, timeoutMs }, { signal });
    } catch (error) {
      throw workerFailure(error, worker, `stopping ${current.id}`, signal);
    }
  }
  throw new DOMException("the call was cancelled", "AbortError");
}

/** Stops every container of a workspace that lives, at once, and waits until they have ended. */
export async function stopContainersOf(
  dependencies: StopDependencies,
  workspaceId: string,
  signal: AbortSignal,
): Promise<void> {
  const living = await dependencies.containers.list(workspaceId);
  await Promise.all(living.map((container) => stopContainer(dependencies, container, stopTimeoutMs, signal)));
}

/** Another one may have moved the container meanwhile: then the caller looks again. */
async function tryTransition(step: () => Promise<unknown>): Promise<void> {
  try {
    await step();
  } catch (error) {
    if (error instanceof ContainerError && (error.code === "conflict" || error.code === "illegal_transition"))
      return;
    throw error;
  }
}
