import { createClient } from "@connectrpc/connect";
import { buildRouteMap, type CommandContext } from "@stricli/core";
import { ContainerService, type Volume } from "../gen/oci_node/v1/container_service_pb.ts";
import { command } from "./action.ts";
import { connectTransport } from "./context.ts";
import { printFailure } from "./failure.ts";
import { ago, printJson, printLine, printTable } from "./output.ts";
import { dateOf, time } from "./shape.ts";

const ls = command<{ json: boolean }>({
  brief: "List the workspace's volumes",
  async run(flags) {
    const { volumes } = await createClient(ContainerService, connectTransport()).listVolumes({});
    if (flags.json) {
      printJson(volumes.map(volumeShape));
      return 0;
    }
    printTable(
      ["NAME", "WORKER", "USED BY", "AGE"],
      volumes.map(({ name, workerId, containerIds, createdAt }) => [
        name,
        workerId,
        containerIds.length > 1 ? `${containerIds.length} containers` : (containerIds[0] ?? ""),
        ago(dateOf(createdAt)),
      ]),
    );
    return 0;
  },
});

const rm = command<{ json: boolean }, string[]>({
  brief: "Remove volumes that no container uses, with what is in them",
  positional: {
    kind: "array",
    parameter: { parse: String, placeholder: "NAME", brief: "Name of a volume" },
    minimum: 1,
  },
  async run(flags, ...names) {
    const client = createClient(ContainerService, connectTransport());
    const removed: string[] = [];
    let code = 0;
    for (const name of names) {
      try {
        await client.removeVolume({ name });
        removed.push(name);
        if (!flags.json) printLine(name);
      } catch (thrown) {
        code = printFailure(thrown, flags.json);
      }
    }
    if (flags.json) printJson(removed);
    return code;
  },
});

export const volumeRoutes = buildRouteMap<string, CommandContext>({
  routes: { ls, rm },
  docs: { brief: "Volumes with a name: `run --volume NAME:/PATH` makes them" },
});

function volumeShape({ name, workerId, containerIds, createdAt }: Volume) {
  return { name, worker: workerId, containers: containerIds, createdAt: time(createdAt) };
}
