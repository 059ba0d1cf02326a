import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { WorkerClients } from "../container/worker-client.ts";
import type { WorkerLazyStatusSchema } from "../gen/oci_node/v1/lazy_status_pb.ts";
import type { SchedulerStore } from "./store.ts";

/** Somebody waits at a terminal: a worker that is busy or gone must not keep the others' answers. */
const answerWithinMs = 5_000;

/** An image as its rows name it. */
export interface AskedImage {
  readonly workspaceId: string;
  readonly manifestDigest: string;
  readonly indexSha256: string;
}

/** What every living worker has of an image. Never throws for a worker: one that does not answer says so. */
export async function askWorkers(
  store: SchedulerStore,
  clients: WorkerClients,
  { workspaceId, manifestDigest, indexSha256 }: AskedImage,
  signal: AbortSignal,
): Promise<MessageInitShape<typeof WorkerLazyStatusSchema>[]> {
  const workers = (await store.workers()).filter(({ state }) => state !== "lost");
  return await Promise.all(
    workers.map(async (worker) => {
      const about = { workerId: worker.id, workerName: worker.name };
      try {
        const within = AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]);
        const request = { workspaceId, manifestDigest, indexSha256 };
        const { layers, mounts } = await clients.to(worker).getLazyStatus(request, { signal: within });
        return { ...about, layers, mounts };
      } catch (error) {
        const unknown = error instanceof ConnectError && error.code === Code.NotFound;
        return { ...about, error: unknown ? "it has no index of the image" : "it did not answer" };
      }
    }),
  );
}
