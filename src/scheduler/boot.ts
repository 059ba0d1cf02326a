import { revokedError } from "../cluster/error.ts";
import { SchedulerError } from "./error.ts";
import type { SchedulerStore } from "./store.ts";
import type { Worker } from "./worker.ts";

/** The worker, when this boot of it is the one that is known. @throws ClusterError `revoked`; SchedulerError `stale_boot` */
export async function bootOf(
  store: Pick<SchedulerStore, "worker">,
  { workerId, bootNonce }: { readonly workerId: string; readonly bootNonce: string },
): Promise<Worker> {
  const worker = await store.worker(workerId);
  if (worker?.state === "revoked") throw revokedError(workerId, worker.name);
  if (worker !== undefined && worker.bootNonce === bootNonce) return worker;
  throw new SchedulerError("stale_boot", `worker ${workerId} registered again meanwhile`, {
    next: "The worker registers again by itself.",
  });
}
