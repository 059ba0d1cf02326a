import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { ClusterService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { formatSize } from "../std/size.ts";
import { command } from "./action.ts";
import { connectTransport } from "./context.ts";
import { ago, printJson, printTable } from "./output.ts";
import { dateOf, workerShape } from "./shape.ts";

const list = command<{ json: boolean }>({
  brief: "List the workers",
  async run(flags) {
    const { workers } = await createClient(ClusterService, connectTransport()).listWorkers({});
    if (flags.json) {
      printJson(workers.map(workerShape));
      return 0;
    }
    printTable(
      ["ID", "NAME", "STATE", "PLATFORM", "CONTAINERS", "CPU", "MEMORY", "SEEN"],
      workers.map((worker) => [
        worker.id,
        worker.name,
        worker.state,
        worker.platform,
        String(worker.containers),
        `${worker.cpuMillisUsed / 1000}/${worker.cpuMillis / 1000}`,
        `${formatSize(Number(worker.memoryBytesUsed))}/${formatSize(Number(worker.memoryBytes))}`,
        `${ago(dateOf(worker.lastHeartbeatAt))} ago`,
      ]),
    );
    return 0;
  },
});

export const workerRoutes = buildRouteMap({
  routes: { ls: list },
  docs: { brief: "Look at the workers" },
});
