import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ContainerService, type StreamEventsResponse } from "../gen/oci_node/v1/container_service_pb.ts";
import { parseDuration } from "../std/duration.ts";
import { printable, printableJson } from "../std/printable.ts";
import { command } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { printLine } from "./output.ts";
import { time } from "./shape.ts";

const messageLengthMax = 2000;

export const events = command<{ json: boolean; follow: boolean; since?: Date }, [string?]>({
  brief: "Show what happened to containers, oldest first",
  fullDescription: "With --json a line of JSON for each event.",
  flags: {
    follow: {
      kind: "boolean",
      default: false,
      brief: "Go on with what happens; of one container, until it has ended",
    },
    since: {
      kind: "parsed",
      parse: parseSince,
      optional: true,
      brief: "Not what happened earlier: 10m, 2h, or a time such as 2026-01-31T12:00:00Z",
      placeholder: "TIME",
    },
  },
  aliases: { f: "follow" },
  positional: {
    kind: "tuple",
    parameters: [
      {
        parse: String,
        placeholder: "CONTAINER",
        brief: "Id, its beginning, or name; without: all of the workspace",
        optional: true,
      },
    ],
  },
  async run(flags, id = "") {
    const since = flags.since === undefined ? {} : { since: timestampFromDate(flags.since) };
    const client = createClient(ContainerService, connectTransport());
    try {
      for await (const event of client.streamEvents({ id, follow: flags.follow, ...since }))
        printLine(flags.json ? printableJson(shapeOf(event)) : lineOf(event));
    } catch (thrown) {
      if (ConnectError.from(thrown).code !== Code.Canceled) throw thrown;
      throw new CliError("failed", "the connection to the node was lost", {
        next: "Begin again with --since and the time of the last event.",
      });
    }
    return 0;
  },
});

function lineOf({ containerId, containerName, event }: StreamEventsResponse): string {
  const of = containerName === "" ? containerId : `${containerId} (${containerName})`;
  return `${time(event?.at)}  ${of}  ${event?.kind ?? ""}: ${printable(event?.message ?? "", messageLengthMax)}`;
}

function shapeOf({ containerId, containerName, event }: StreamEventsResponse) {
  return {
    at: time(event?.at),
    container: containerId,
    name: containerName || null,
    kind: event?.kind ?? "",
    message: event?.message ?? "",
    fields: event?.fields ?? {},
  };
}

/** A time, or how long ago. */
export function parseSince(text: string): Date {
  const ago = parseDuration(text);
  const at = ago === undefined ? new Date(text) : new Date(Date.now() - ago);
  if (!(at.getTime() > 0)) throw new RangeError(`${JSON.stringify(text)} is neither a time nor how long ago`);
  return at;
}
