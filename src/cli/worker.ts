import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { ClusterService, type Worker } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { formatSize } from "../std/size.ts";
import { command, words } from "./action.ts";
import { connectTransport } from "./context.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { dateOf, workerShape } from "./shape.ts";

const list = command<{ json: boolean }>({
  brief: "List the workers; without an administrator's token with what the own workspace has there",
  async run(flags) {
    const { workers } = await createClient(ClusterService, connectTransport("administrator")).listWorkers({});
    if (flags.json) {
      printJson(workers.map(workerShape));
      return 0;
    }
    printTable(
      ["ID", "NAME", "STATE", "PLATFORM", "CONTAINERS", "CPU", "MEMORY", "SEEN", "CERTIFICATE"],
      workers.map((worker) => [
        worker.id,
        worker.name,
        worker.state,
        worker.platform,
        String(worker.containers),
        `${worker.cpuMillisUsed / 1000}/${worker.cpuMillis / 1000}`,
        `${formatSize(Number(worker.memoryBytesUsed))}/${formatSize(Number(worker.memoryBytes))}`,
        `${ago(dateOf(worker.lastHeartbeatAt))} ago`,
        certificateEnd(worker),
      ]),
    );
    return 0;
  },
});

const revoke = command<{ json: boolean }, [worker: string]>({
  brief: "Take a worker out of the cluster, at once and for good",
  fullDescription:
    "Its certificate counts no more: it gets no further container and no credential, and its reports are not taken. What it " +
    "ran is ended as with a lost worker; what was only scheduled there goes to another. Its host can join again as a new " +
    "worker: stop it, remove the folder worker/identity in its data folder, start it with a new join token. Whoever " +
    "has the host may have its join token, and with that comes back as another worker: revoke it as well, `oci-node token revoke`.",
  positional: words({ placeholder: "ID|NAME", brief: "The worker" }),
  async run(flags, named) {
    const client = createClient(ClusterService, connectTransport("administrator"));
    const { worker, containerIds } = await client.revokeWorker({ worker: named });
    if (flags.json) {
      printJson({ revoked: worker === undefined ? null : workerShape(worker), containers: containerIds });
      return 0;
    }
    printLine(worker?.id ?? named);
    if (containerIds.length > 0) note(`containers taken from it: ${containerIds.join(", ")}`);
    note(
      `note: which secrets it was given: oci-node audit --action secret.use --target ${worker?.id ?? named}`,
    );
    return 0;
  },
});

function certificateEnd({ state, certificateExpiresAt }: Worker): string {
  const end = dateOf(certificateExpiresAt);
  if (end === undefined || state === "revoked") return "none that counts";
  return end.getTime() > Date.now() ? `until ${end.toISOString().slice(0, 16)}Z` : "expired";
}

export const workerRoutes = buildRouteMap({
  routes: { ls: list, revoke },
  docs: { brief: "Look at the workers, and take one out" },
});
