import type { ConnectRouter } from "@connectrpc/connect";
import { formatJoinToken } from "../cluster/join-token.ts";
import { type StopDependencies, stopContainersOf } from "../container/stop.ts";
import { TokenService } from "../gen/oci_node/v1/token_service_pb.ts";
import { WorkspaceService } from "../gen/oci_node/v1/workspace_service_pb.ts";
import type { IndexStore } from "../index/store.ts";
import { tokenService } from "../secret/token-service.ts";
import type { RemovedWorkspace } from "../secret/workspace-removal-store.ts";
import { workspaceService } from "../secret/workspace-service.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import type { ControlPlane } from "./control-plane.ts";

const log = logger("gateway");
const removeVolumeTimeoutMs = 15_000;

/** What a gateway needs, beside the control plane, to look after tenants. */
export interface TenantDependencies {
  readonly plane: ControlPlane;
  readonly index: IndexStore;
  readonly stopping: StopDependencies;
}

/** Serves workspaces and tokens. */
export function serveTenants(router: ConnectRouter, { plane, index, stopping }: TenantDependencies): void {
  const { workspaces, tokens } = plane;
  router.service(
    WorkspaceService,
    workspaceService({
      workspaces,
      tokens,
      wasRemoved: (name) => plane.auditEvents.removedWorkspace(name),
      async stopContainers(workspaceId, signal) {
        // First, so that no containers of theirs come after those that are stopped.
        await plane.endpointStores.endpoints.deleteAll(workspaceId);
        await stopContainersOf(stopping, workspaceId, signal);
      },
      forget: async (workspace) => {
        await forgetWorkspace(index, workspace);
        await forgetVolumes(plane, workspace);
      },
    }),
  );
  router.service(
    TokenService,
    tokenService({
      tokens,
      workspaces,
      formatJoinToken: (token) => formatJoinToken(token, plane.authorities.trusted),
      joinedWith: async (id) => (await plane.workerIdentities.joinedWith(id)).map(({ name }) => name),
    }),
  );
}

/** Has workers remove a workspace's volumes. Those of a worker that is away stay there, and its operator is told. */
async function forgetVolumes(
  { workerClients, scheduling }: ControlPlane,
  { id: workspaceId, name: workspace, volumes }: RemovedWorkspace,
): Promise<void> {
  const remove = async ({ name, workerId }: RemovedWorkspace["volumes"][number]) => {
    const worker = await scheduling.worker(workerId);
    if (worker === undefined || worker.state === "revoked") return;
    const timeoutMs = removeVolumeTimeoutMs;
    await workerClients.to(worker).removeVolume({ workspaceId, name }, { timeoutMs });
  };
  const gone = await Promise.allSettled(volumes.map(remove));
  for (const [at, { status }] of gone.entries()) {
    if (status === "fulfilled") continue;
    const { name: volume, workerId: worker } = volumes[at] as RemovedWorkspace["volumes"][number];
    log.error("a volume of a removed workspace is left", { workspace, id: workspaceId, volume, worker });
  }
}

/**
 * Removes what a workspace had outside the database. It is gone by now: what cannot be removed is in nobody's way, and the
 * disk's trouble is the operator's.
 */
export async function forgetWorkspace(
  index: IndexStore,
  { id, name, unusedManifests }: Pick<RemovedWorkspace, "id" | "name" | "unusedManifests">,
): Promise<void> {
  try {
    await index.traces.removeWorkspace(id);
    for (const manifest of unusedManifests) await index.removeImage(manifest);
  } catch (error) {
    log.error("files of a removed workspace are left", { workspace: name, id, error: messageOf(error) });
  }
}
