import type { HousekeepingStore, RemovedContainer } from "../container/housekeeping-store.ts";
import type { RetentionStore } from "./retention-store.ts";

/** Of each deployment and of each endpoint: enough to see why the latest ended. */
export const kept = { containers: 20, deployments: 10 } as const;

export interface RetentionDependencies {
  readonly retention: RetentionStore;
  readonly housekeeping: Pick<HousekeepingStore, "forgetEnded">;
  /** Removes a container's output from its worker; one that is away does that later by itself. */
  readonly removeOutput: (container: RemovedContainer) => Promise<void>;
}

/** Forgets of every endpoint's deployments and ended containers all but the latest, and all of endpoints that are gone. */
export async function forgetOld(
  { retention, housekeeping, removeOutput }: RetentionDependencies,
  { containers, deployments }: Readonly<Record<keyof typeof kept, number>> = kept,
): Promise<void> {
  await retention.forgetDeployments(deployments);
  for (const { deploymentId, keep } of await retention.overgrown(containers))
    for (const gone of await housekeeping.forgetEnded(deploymentId, keep)) await removeOutput(gone);
}
