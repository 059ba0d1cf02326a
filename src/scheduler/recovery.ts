import type { Container } from "../container/container.ts";
import { ContainerError } from "../container/error.ts";
import type { ContainerStore } from "../container/store.ts";
import { logger } from "../std/log.ts";
import type { FormerWorker, FormerWorkerStore } from "./former-worker-store.ts";
import type { SchedulerStore } from "./store.ts";

const log = logger("scheduler");

/** Ends, or queues again, what a worker had and has no more. Returns the ids of those. */
export async function recoverContainers(
  containers: ContainerStore,
  lost: readonly Container[],
  reason: string,
): Promise<string[]> {
  const recovered: string[] = [];
  for (const container of lost) {
    const to = container.state === "scheduled" ? "pending" : "failed";
    log.warn("container lost", { container: container.id, from: container.state, to, reason });
    try {
      await containers.transition(container.id, { attempt: container.attempt, from: [container.state] }, to, {
        reason,
      });
      recovered.push(container.id);
    } catch (error) {
      // Its worker reported something newer meanwhile.
      if (!(error instanceof ContainerError)) throw error;
    }
  }
  return recovered;
}

/** Gives up the workers that stayed silent for too long, with what they had. */
export async function recoverSilentWorkers(
  store: SchedulerStore,
  containers: ContainerStore,
  silentMs: number,
): Promise<void> {
  for (const workerId of await store.markLost(silentMs)) {
    log.warn("worker lost", { worker: workerId, silentMs });
    await recoverContainers(containers, await store.containersOn(workerId), `worker ${workerId} was lost`);
  }
}

/**
 * Gives up what workers of an earlier version still had: whether they are upgraded or not, they have lost it.
 *
 * @param found at the start; those that were succeeded since are left out
 */
export async function recoverFormerWorkers(
  dependencies: {
    readonly store: SchedulerStore;
    readonly containers: ContainerStore;
    readonly formerWorkers: FormerWorkerStore;
  },
  found: readonly FormerWorker[],
): Promise<void> {
  if (found.length === 0) return;
  const { store, containers, formerWorkers } = dependencies;
  const left = new Set((await formerWorkers.retire()).map(({ id }) => id));
  for (const { id, name, isNew } of found.filter((worker) => left.has(worker.id))) {
    if (isNew)
      log.warn("a worker of an earlier version gets nothing until it is upgraded", { worker: id, name });
    const reason = `its worker ${name} (${id}) is of an earlier version, which this one does not speak to: upgrade its host, and start the container anew`;
    await recoverContainers(containers, await store.containersOn(id), reason);
  }
}
