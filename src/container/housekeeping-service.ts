import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { eventsOf } from "./event-stream.ts";
import { findContainer } from "./find.ts";
import type { HousekeepingStore, RemovedContainer } from "./housekeeping-store.ts";
import { isEnded } from "./state.ts";
import { type StopDependencies, stopContainer } from "./stop.ts";
import type { ContainerStore } from "./store.ts";
import { type VolumeStore, volumeInUse } from "./volume-store.ts";
import { fromWireTime, toWireEvent } from "./wire-service.ts";
import { type WorkerClients, workerFailure } from "./worker-client.ts";

type Housekeeping = Pick<
  ServiceImpl<typeof ContainerService>,
  "removeContainer" | "streamEvents" | "listVolumes" | "removeVolume"
>;

export interface HousekeepingDependencies extends StopDependencies {
  readonly containers: ContainerStore;
  readonly housekeeping: HousekeepingStore;
  readonly volumes: VolumeStore;
  readonly workers: WorkerClients;
  /** Whether a worker counts no more and never will: what it had is gone. */
  readonly isGone: (workerId: string) => Promise<boolean>;
}

const log = logger("container");
const removeLogTimeoutMs = 2_000;
const removeVolumeTimeoutMs = 60_000;

/** What is looked at and cleared away: events, ended containers, volumes. */
export function housekeepingMethods(dependencies: HousekeepingDependencies): Housekeeping {
  const { containers, housekeeping, volumes } = dependencies;
  return {
    async removeContainer({ id, force }, context) {
      const found = await findContainer(containers, workspaceOf(context), id);
      if (force && !isEnded(found.state)) await stopContainer(dependencies, found, 1, context.signal);
      await removeOutput(dependencies, await housekeeping.remove(found.id));
      return { id: found.id };
    },
    async *streamEvents({ id, since, follow }, context) {
      const workspaceId = workspaceOf(context);
      const container = id === "" ? undefined : await findContainer(containers, workspaceId, id);
      const filter = { workspaceId, containerId: container?.id, since: fromWireTime(since), follow };
      for await (const event of eventsOf(dependencies, filter, context.signal)) {
        const { containerId, containerName = "" } = event;
        yield { containerId, containerName, event: toWireEvent(event) };
      }
    },
    async listVolumes(_, context) {
      const list = await volumes.list(workspaceOf(context));
      return {
        volumes: list.map(({ name, workerId, containerIds, createdAt }) => ({
          name,
          workerId,
          containerIds: [...containerIds],
          createdAt: timestampFromDate(createdAt),
        })),
      };
    },
    async removeVolume({ name }, context) {
      await removeVolume(dependencies, workspaceOf(context), name, context.signal);
      return {};
    },
  };
}

/**
 * Asks a container's worker to remove its output. One that does not answer now asks by itself later on whose output is
 * nobody's.
 */
export async function removeOutput(
  { workers, findWorker }: Pick<HousekeepingDependencies, "workers" | "findWorker">,
  { id, workerId }: RemovedContainer,
): Promise<void> {
  try {
    const worker = workerId === undefined ? undefined : await findWorker(workerId);
    if (worker === undefined) return;
    await workers.to(worker).removeContainer({ containerId: id }, { timeoutMs: removeLogTimeoutMs });
  } catch (error) {
    log.info("the output of a removed container stays on its worker for now", {
      container: id,
      worker: workerId,
      error: messageOf(error),
    });
  }
}

/**
 * Removes a volume that no container uses. What is on the worker goes first: a volume that was forgotten with its content
 * would come back with it.
 *
 * @throws ContainerError `volume_not_found`; `volume_in_use`; `worker_away`
 */
export async function removeVolume(
  {
    volumes,
    workers,
    findWorker,
    isGone,
  }: Pick<HousekeepingDependencies, "volumes" | "workers" | "findWorker" | "isGone">,
  workspaceId: string,
  name: string,
  signal: AbortSignal,
): Promise<void> {
  const { workerId } = await volumes.unused(workspaceId, name);
  const worker = (await isGone(workerId)) ? undefined : await findWorker(workerId);
  if (worker !== undefined) {
    const timeoutMs = removeVolumeTimeoutMs;
    await workers
      .to(worker)
      .removeVolume({ workspaceId, name }, { timeoutMs, signal })
      .catch((error: unknown) => {
        // Seen there by a container that has ended here: its worker is about to say so.
        const used = error instanceof ConnectError && error.code === Code.FailedPrecondition;
        throw used
          ? volumeInUse({ name, containerIds: [] })
          : workerFailure(error, worker, `removing volume ${name}`, signal);
      });
  }
  await volumes.forget(workspaceId, name);
}
