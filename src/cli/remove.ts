import { createClient } from "@connectrpc/connect";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { command } from "./action.ts";
import { connectTransport } from "./context.ts";
import { printFailure } from "./failure.ts";
import { note, printJson, printLine } from "./output.ts";
import { containerShape, hasEnded } from "./shape.ts";
import { watchUntil } from "./watch-container.ts";

/** What a container that never started gives, as `docker run` does. */
export const notStartedExitCode = 125;

const containerWords = {
  kind: "array",
  parameter: { parse: String, placeholder: "CONTAINER", brief: "Container id, its beginning, or a name" },
  minimum: 1,
};

export const rm = command<{ json: boolean; force: boolean }, string[]>({
  brief: "Remove containers that have ended, with their output",
  flags: { force: { kind: "boolean", default: false, brief: "End those that live, at once" } },
  aliases: { f: "force" },
  positional: containerWords,
  async run(flags, ...containers) {
    const client = createClient(ContainerService, connectTransport());
    const removed: string[] = [];
    // The others go all the same.
    let code = 0;
    for (const id of containers) {
      try {
        removed.push((await client.removeContainer({ id, force: flags.force })).id);
        if (!flags.json) printLine(removed.at(-1) ?? id);
      } catch (thrown) {
        code = printFailure(thrown, flags.json);
      }
    }
    if (flags.json) printJson(removed);
    return code;
  },
});

export const wait = command<{ json: boolean }, string[]>({
  brief: "Wait until containers have ended, and print their exit codes",
  fullDescription: `One that never started gives ${notStartedExitCode}.`,
  positional: containerWords,
  async run(flags, ...containers) {
    const client = createClient(ContainerService, connectTransport());
    const ended = await Promise.all(containers.map((id) => watchUntil(client, id, hasEnded)));
    if (flags.json) {
      printJson(ended.map(containerShape));
      return 0;
    }
    for (const { id, exitCode, reason } of ended) {
      if (exitCode === undefined) note(`oci-node: container ${id}: ${reason || "it never started"}`);
      printLine(String(exitCode ?? notStartedExitCode));
    }
    return 0;
  },
});
