import { volumeNames } from "../container/check-options.ts";
import type { Container } from "../container/container.ts";
import type { PlacedVolume } from "./place.ts";
import type { SchedulerStore } from "./store.ts";
import type { Worker } from "./worker.ts";

/** Those of a container's volumes that are on a worker by now; the others will be where it is placed. */
export async function placedVolumes(
  store: Pick<SchedulerStore, "volumeWorkers">,
  { workspaceId, options }: Pick<Container, "workspaceId" | "options">,
  workers: readonly Pick<Worker, "id" | "state">[],
): Promise<readonly PlacedVolume[]> {
  const names = volumeNames(options);
  if (names.length === 0) return [];
  const states = new Map(workers.map(({ id, state }) => [id, state]));
  const where = await store.volumeWorkers(workspaceId, names);
  return [...where].map(([name, workerId]) => ({
    name,
    workerId,
    worker: (states.get(workerId) ?? "revoked") === "revoked" ? "gone" : "there",
  }));
}
