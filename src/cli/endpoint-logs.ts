import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { type Container, ContainerService, LogStream } from "../gen/oci_node/v1/container_service_pb.ts";
import { type Endpoint, EndpointService } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { printableJson } from "../std/printable.ts";
import { command, words } from "./action.ts";
import { connectTransport } from "./context.ts";
import type { EndpointClients } from "./endpoint-watch.ts";
import { type RangeFlags, rangeFlags, rangeOf } from "./logs.ts";
import { note, printLine } from "./output.ts";
import { dateOf, hasEnded } from "./shape.ts";

interface LogsFlags extends RangeFlags {
  readonly json: boolean;
  readonly follow: boolean;
}

export const logs = command<LogsFlags, [string]>({
  brief: "Show the output of an endpoint's containers, each line with its container",
  flags: {
    follow: { kind: "boolean", default: false, brief: "Go on, with the containers that come" },
    ...rangeFlags,
  },
  aliases: { f: "follow", n: "tail" },
  positional: words({ placeholder: "NAME", brief: "The endpoint" }),
  async run(flags, name) {
    const transport = connectTransport();
    const clients = {
      endpoints: createClient(EndpointService, transport),
      containers: createClient(ContainerService, transport),
    };
    const left = new AbortController();
    const show = (container: Container) => showOutput(clients, container, flags, left.signal);
    try {
      if (flags.follow) await followAll(clients, name, show, left.signal);
      else {
        const { endpoint } = await clients.endpoints.getEndpoint({ name });
        for (const container of await containersOf(clients, endpoint)) await show(container);
      }
    } finally {
      left.abort();
    }
    return 0;
  },
});

/** Those of its latest deployments, the first first. */
async function containersOf(
  { containers }: EndpointClients,
  endpoint: Endpoint | undefined,
): Promise<Container[]> {
  const deployments = new Set([endpoint?.active?.id, endpoint?.latest?.id]);
  const listed = (await containers.listContainers({ all: true })).containers;
  return listed
    .filter(({ id, deploymentId }) => deployments.has(deploymentId) || endpoint?.containerIds.includes(id))
    .sort((a, b) => (dateOf(a.createdAt)?.getTime() ?? 0) - (dateOf(b.createdAt)?.getTime() ?? 0));
}

/** Ends when the endpoint is removed, and all that its containers wrote is shown. */
async function followAll(
  clients: EndpointClients,
  name: string,
  show: (container: Container) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const shown = new Set<string>();
  const showing: Promise<void>[] = [];
  for await (const { endpoint } of clients.endpoints.watchEndpoint({ name }, { signal })) {
    for (const container of await containersOf(clients, endpoint)) {
      if (shown.has(container.id)) continue;
      shown.add(container.id);
      showing.push(show(container));
    }
  }
  await Promise.all(showing);
}

async function showOutput(
  { containers }: EndpointClients,
  container: Container,
  flags: LogsFlags,
  signal: AbortSignal,
): Promise<void> {
  const { id } = container;
  const rest = { [LogStream.STDOUT]: "", [LogStream.STDERR]: "" } as Record<LogStream, string>;
  const decoders = new Map<LogStream, TextDecoder>();
  try {
    const follow = flags.follow && !hasEnded(container);
    for await (const piece of containers.streamLogs({ id, follow, ...rangeOf(flags) }, { signal })) {
      const { stream, at, data } = piece;
      const decoder = decoders.get(stream) ?? new TextDecoder();
      decoders.set(stream, decoder);
      const text = decoder.decode(data, { stream: true });
      if (flags.json) {
        const name = stream === LogStream.STDERR ? "stderr" : "stdout";
        printLine(printableJson({ container: id, stream: name, time: dateOf(at), text }));
        continue;
      }
      const lines = `${rest[stream] ?? ""}${text}`.split("\n");
      rest[stream] = lines.pop() ?? "";
      for (const line of lines) await writeLine(stream, `${id} | ${line}`);
    }
  } catch (thrown) {
    const { code, rawMessage } = ConnectError.from(thrown);
    // It never ran.
    if (code !== Code.NotFound) note(`oci-node: ${id}: ${rawMessage}`);
  }
  for (const [stream, line] of Object.entries(rest))
    if (line !== "") await writeLine(Number(stream), `${id} | ${line}`);
}

async function writeLine(stream: LogStream, line: string): Promise<void> {
  const out = stream === LogStream.STDERR ? process.stderr : process.stdout;
  if (!out.write(`${line}\n`)) await new Promise((resolve) => out.once("drain", resolve));
}
