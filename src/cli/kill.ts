import { createClient } from "@connectrpc/connect";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { command, words } from "./action.ts";
import { connectTransport } from "./context.ts";
import { printJson, printLine } from "./output.ts";
import { containerShape } from "./shape.ts";

export const kill = command<{ json: boolean; signal?: string }, [string]>({
  brief: "Send a signal to a container's program: SIGKILL, unless another is named",
  flags: {
    signal: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Name or number, such as HUP, SIGTERM, 9",
      placeholder: "SIGNAL",
    },
  },
  aliases: { s: "signal" },
  positional: words({ placeholder: "ID", brief: "Container: its name, its id, or the beginning of one" }),
  async run(flags, id) {
    const client = createClient(ContainerService, connectTransport());
    const { container } = await client.killContainer({ id, signal: flags.signal ?? "" });
    if (flags.json && container !== undefined) printJson(containerShape(container));
    else printLine(container?.id ?? id);
    return 0;
  },
});
