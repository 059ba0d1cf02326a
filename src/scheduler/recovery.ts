import { type Container, lostEventKind } from "../container/container.ts";
import { ContainerError } from "../container/error.ts";
import type { ContainerStore } from "../container/store.ts";
import { logger } from "../std/log.ts";
import type { SchedulerStore } from "./store.ts";
import { isCertified } from "./worker.ts";

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
      const expected = { attempt: container.attempt, from: [container.state] };
      // That it did not end by itself is what tells whoever replaces it that another one may fare better.
      const events = to === "failed" ? [{ kind: lostEventKind, message: reason }] : [];
      await containers.transition(container.id, expected, to, { reason, events });
      recovered.push(container.id);
    } catch (error) {
      // Its worker reported something newer meanwhile.
      if (!(error instanceof ContainerError)) throw error;
    }
  }
  return recovered;
}

/**
 * Ends, or queues again, all that is placed on a worker that was revoked: nothing is placed there any more. What it reported
 * in that very moment, when it still counted, is looked at again: nobody else would. Returns the ids of what it had.
 */
export async function recoverAllOn(
  store: SchedulerStore,
  containers: ContainerStore,
  workerId: string,
  reason: string,
): Promise<string[]> {
  const recovered: string[] = [];
  for (;;) {
    const left = await store.containersOn(workerId);
    if (left.length === 0) return recovered;
    recovered.push(...(await recoverContainers(containers, left, reason)));
  }
}

/** Gives up the workers that stayed silent for too long, with what they had. */
export async function recoverSilentWorkers(
  store: SchedulerStore,
  containers: ContainerStore,
  silentMs: number,
): Promise<void> {
  for (const workerId of await store.markLost(silentMs)) {
    const worker = await store.worker(workerId);
    const earlier = worker !== undefined && !isCertified(worker);
    const reason = earlier
      ? `its worker ${worker.name} (${workerId}) was lost: it was of an earlier version, which no other worker can go on for. Start the container anew; its host joins as a new worker once it is upgraded`
      : `worker ${workerId} was lost`;
    log.warn(earlier ? "a worker of an earlier version gets nothing until it is upgraded" : "worker lost", {
      worker: workerId,
      silentMs,
    });
    await recoverContainers(containers, await store.containersOn(workerId), reason);
  }
}
