import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import { type Endpoint, EndpointService } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { deploy } from "./endpoint-deploy.ts";
import { logs } from "./endpoint-logs.ts";
import { deploymentStateName, endpointShape } from "./endpoint-shape.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { dateOf } from "./shape.ts";

const endpointWord = words({ placeholder: "NAME", brief: "The endpoint" });

const list = command<{ json: boolean }>({
  brief: "List the endpoints",
  async run(flags) {
    const { endpoints } = await createClient(EndpointService, connectTransport()).listEndpoints({});
    if (flags.json) {
      printJson(endpoints.map(endpointShape));
      return 0;
    }
    printTable(
      ["NAME", "STATE", "VERSION", "CONTAINERS", "IN FLIGHT", "QUEUED", "ACCESS", "AGE", "URL"],
      endpoints.map((endpoint) => [
        endpoint.name,
        states(endpoint),
        versions(endpoint),
        `${endpoint.containersReady}${endpoint.containersStarting > 0 ? `+${endpoint.containersStarting}` : ""}`,
        String(endpoint.requestsInFlight),
        String(endpoint.requestsQueued),
        (endpoint.active ?? endpoint.latest)?.spec?.public ? "public" : "token",
        ago(dateOf(endpoint.createdAt)),
        endpoint.url || endpoint.path,
      ]),
    );
    return 0;
  },
});

const inspect = command<{ json: boolean }, [string]>({
  brief: "Show an endpoint as JSON: what is deployed, its containers, its requests",
  positional: endpointWord,
  async run(_, name) {
    const { endpoint } = await createClient(EndpointService, connectTransport()).getEndpoint({ name });
    if (endpoint !== undefined) printJson(endpointShape(endpoint));
    return 0;
  },
});

const remove = command<{ json: boolean; detach: boolean }, [string]>({
  brief: "Remove an endpoint: its requests end first, then its containers",
  flags: { detach: { kind: "boolean", default: false, brief: "Do not wait until it is gone" } },
  aliases: { d: "detach" },
  positional: endpointWord,
  async run(flags, name) {
    const client = createClient(EndpointService, connectTransport());
    const { endpoint } = await client.deleteEndpoint({ name });
    if (endpoint === undefined)
      throw new CliError("failed", `there is no endpoint ${name}`, {
        next: "List them with `oci-node endpoint ls`.",
      });
    if (!flags.detach) await whenGone(client, endpoint, flags.json);
    if (flags.json) printJson({ removed: name });
    else printLine(name);
    return 0;
  },
});

async function whenGone(
  client: ReturnType<typeof createClient<typeof EndpointService>>,
  { id, name }: Endpoint,
  quiet: boolean,
): Promise<void> {
  let told = 0;
  try {
    for await (const { endpoint } of client.watchEndpoint({ name })) {
      // Another one by now.
      if (endpoint !== undefined && endpoint.id !== id) return;
      const running = endpoint?.requestsInFlight ?? 0;
      if (!quiet && running > 0 && running !== told) note(`requests that go on: ${running}`);
      told = running;
    }
  } catch (thrown) {
    const { endpoints } = await client.listEndpoints({});
    if (endpoints.some((endpoint) => endpoint.id === id)) throw thrown;
  }
}

function states({ active, latest }: Endpoint): string {
  return [active, latest]
    .flatMap((one) => (one === undefined ? [] : [deploymentStateName(one.state)]))
    .join(", ");
}

function versions({ active, latest }: Endpoint): string {
  return [active, latest].flatMap((one) => (one === undefined ? [] : [String(one.version)])).join(", ");
}

export const endpointRoutes = buildRouteMap({
  routes: { deploy, ls: list, inspect, logs, rm: remove },
  docs: { brief: "Look after HTTP endpoints: containers that come and go with requests" },
});
