import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import type { ContainerStore } from "../container/store.ts";
import { type ClusterService, WorkerSchema } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { callerOf } from "../rpc/authentication.ts";
import { logger } from "../std/log.ts";
import { recoverAllOn } from "./recovery.ts";
import type { SchedulerStore } from "./store.ts";
import type { Worker } from "./worker.ts";

const log = logger("scheduler");

/** Answers ClusterService: what operators see of the workers, and how they get rid of one. */
export function clusterService(
  store: SchedulerStore,
  containers: ContainerStore,
): ServiceImpl<typeof ClusterService> {
  return {
    async listWorkers(_, context) {
      const { workspaceId } = callerOf(context);
      const workers = await store.workers(workspaceId);
      if (workspaceId === undefined) return { workers: workers.map(toWire) };
      // What others run there is not a tenant's to see, nor where the cluster's own ports are.
      return { workers: workers.map((worker) => toWire({ ...worker, address: "" })) };
    },
    async revokeWorker({ worker: named }) {
      const { id, name } = await store.revoke(named);
      log.warn("worker revoked", { worker: id, name });
      // From here on nothing is placed there, so this is all that it has.
      const reason = `worker ${name} was revoked`;
      const containerIds = await recoverAllOn(store, containers, id, reason);
      const worker = await store.worker(id);
      return {
        worker: worker === undefined ? create(WorkerSchema, { id, name, state: "revoked" }) : toWire(worker),
        containerIds,
      };
    },
  };
}

function toWire(worker: Worker) {
  const { certificateNotAfter: notAfter } = worker;
  return create(WorkerSchema, {
    id: worker.id,
    name: worker.name,
    address: worker.address,
    state: worker.state,
    platform: worker.platform,
    version: worker.version,
    cpuMillis: worker.cpuMillis,
    memoryBytes: BigInt(worker.memoryBytes),
    cpuMillisUsed: worker.cpuMillisPlaced,
    memoryBytesUsed: BigInt(worker.memoryBytesPlaced),
    containers: worker.containers,
    lastHeartbeatAt: timestampFromDate(worker.lastHeartbeatAt),
    ...(notAfter === undefined ? {} : { certificateExpiresAt: timestampFromDate(notAfter) }),
  });
}
