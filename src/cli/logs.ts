import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import {
  ContainerService,
  LogStream,
  type StreamLogsResponse,
} from "../gen/oci_node/v1/container_service_pb.ts";
import { printableJson } from "../std/printable.ts";
import { command, words } from "./action.ts";
import { connectTransport } from "./context.ts";
import { parseSince } from "./events.ts";
import { printLine } from "./output.ts";
import { dateOf } from "./shape.ts";

/** Which part of an output. */
export interface RangeFlags {
  readonly since?: Date;
  readonly tail?: number;
}

export const rangeFlags = {
  since: {
    kind: "parsed",
    parse: parseSince,
    optional: true,
    brief: "Not what was written earlier: 10m, 2h, or a time such as 2026-01-31T12:00:00Z",
    placeholder: "TIME",
  },
  tail: {
    kind: "parsed",
    parse: parseLines,
    optional: true,
    brief: "The last N lines only, and what comes",
    placeholder: "N",
  },
} as const;

export function rangeOf({ since, tail }: RangeFlags) {
  return { ...(since && { since: timestampFromDate(since) }), ...(tail !== undefined && { tail }) };
}

interface LogsFlags extends RangeFlags {
  readonly json: boolean;
  readonly follow: boolean;
  readonly timestamps: boolean;
}

export const logs = command<LogsFlags, [string]>({
  brief: "Show a container's output",
  flags: {
    follow: { kind: "boolean", default: false, brief: "Go on until the container has ended" },
    ...rangeFlags,
    timestamps: { kind: "boolean", default: false, brief: "Begin each line with its time" },
  },
  aliases: { f: "follow", n: "tail", t: "timestamps" },
  positional: words({ placeholder: "ID", brief: "Container: its name, its id, or the beginning of one" }),
  async run(flags, id) {
    const client = createClient(ContainerService, connectTransport());
    const { follow } = flags;
    const stamps = { stdout: new LineTimes(), stderr: new LineTimes() };
    for await (const piece of client.streamLogs({ id, follow, ...rangeOf(flags) })) {
      const stream = piece.stream === LogStream.STDERR ? "stderr" : "stdout";
      if (flags.json) {
        const text = new TextDecoder().decode(piece.data);
        printLine(printableJson({ stream, time: dateOf(piece.at), text }));
        continue;
      }
      const out = process[stream];
      const data = flags.timestamps ? stamps[stream].mark(piece) : piece.data;
      if (!out.write(data)) await new Promise((resolve) => out.once("drain", resolve));
    }
    return 0;
  },
});

const newline = 0x0a;

/** Puts the time before each line of one stream, whose parts may begin and end within lines. */
class LineTimes {
  #within = false;

  mark({ at, data }: StreamLogsResponse): Uint8Array {
    const time = Buffer.from(`${dateOf(at)?.toISOString() ?? "-"} `);
    const parts: Uint8Array[] = [];
    for (let start = 0; start < data.length; ) {
      const end = data.indexOf(newline, start);
      if (!this.#within) parts.push(time);
      const after = end < 0 ? data.length : end + 1;
      parts.push(data.subarray(start, after));
      this.#within = end < 0;
      start = after;
    }
    return Buffer.concat(parts);
  }
}

function parseLines(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new RangeError(`${JSON.stringify(text)} is no number of lines`);
  return Number(text);
}
