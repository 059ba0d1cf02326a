import { createClient } from "@connectrpc/connect";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { command, words } from "./action.ts";
import { portText } from "./container-shape.ts";
import { parseSeconds } from "./container-words.ts";
import { connectTransport } from "./context.ts";
import { ago, printJson, printLine, printTable } from "./output.ts";
import { containerShape, dateOf, stateName } from "./shape.ts";

const containerWord = words({ placeholder: "CONTAINER", brief: "Container id, its beginning, or a name" });

export const ps = command<{ json: boolean; all: boolean }>({
  brief: "List containers",
  flags: { all: { kind: "boolean", default: false, brief: "Also those that have ended" } },
  aliases: { a: "all" },
  async run(flags) {
    const { containers } = await createClient(ContainerService, connectTransport()).listContainers({
      all: flags.all,
    });
    if (flags.json) {
      printJson(containers.map(containerShape));
      return 0;
    }
    printTable(
      ["ID", "NAME", "IMAGE", "STATE", "EXIT", "PORTS", "COMMAND", "AGE"],
      containers.map((container) => [
        container.id,
        container.name,
        container.reference,
        stateName(container.state),
        container.exitCode === undefined ? "" : String(container.exitCode),
        container.ports.map(portText).join(", "),
        container.command.join(" ").slice(0, 40),
        ago(dateOf(container.createdAt)),
      ]),
    );
    return 0;
  },
});

export const stop = command<{ json: boolean; timeout?: number }, [string]>({
  brief: "Stop a container: its stop signal, then SIGKILL",
  flags: {
    timeout: {
      kind: "parsed",
      parse: parseSeconds,
      optional: true,
      brief: "Seconds before SIGKILL (default: as it was run with, else 10)",
      placeholder: "S",
    },
  },
  aliases: { t: "timeout" },
  positional: containerWord,
  async run(flags, id) {
    // 0: as it was run with.
    const timeoutMs = flags.timeout === undefined ? 0 : Math.max(1, Math.round(flags.timeout * 1000));
    const { container } = await createClient(ContainerService, connectTransport()).stopContainer({
      id,
      timeoutMs,
    });
    if (flags.json && container !== undefined) printJson(containerShape(container));
    else printLine(container?.id ?? id);
    return 0;
  },
});

export const inspect = command<{ json: boolean }, [string]>({
  brief:
    "Show a container as JSON: how it runs, state, worker, phases, events, what was fetched, its credential",
  positional: containerWord,
  async run(_, id) {
    const { container } = await createClient(ContainerService, connectTransport()).getContainer({ id });
    if (container !== undefined) printJson(containerShape(container));
    return 0;
  },
});
