import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { type ContainerService, ContainerState } from "../gen/oci_node/v1/container_service_pb.ts";
import {
  type Deployment,
  DeploymentState,
  type Endpoint,
  type EndpointService,
} from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { printable } from "../std/printable.ts";
import { CliError } from "./context.ts";
import { note } from "./output.ts";
import { hasEnded, stateName } from "./shape.ts";

export interface EndpointClients {
  readonly endpoints: Client<typeof EndpointService>;
  readonly containers: Client<typeof ContainerService>;
}

/**
 * Waits until a deployment takes the requests, and says meanwhile how far its containers are.
 *
 * @throws CliError `failed` when it does not come up, or another one takes its place before
 */
export async function waitForDeployment(
  clients: EndpointClients,
  name: string,
  { id, version }: Deployment,
  { quiet }: { readonly quiet: boolean },
): Promise<Endpoint> {
  const done = new AbortController();
  const followed = new Set<string>();
  try {
    for await (const { endpoint } of clients.endpoints.watchEndpoint({ name }, { signal: done.signal })) {
      if (endpoint === undefined) continue;
      if (endpoint.active?.id === id) return endpoint;
      const latest = endpoint.latest?.id === id ? endpoint.latest : undefined;
      if (latest?.state === DeploymentState.FAILED) throw failure(endpoint, latest);
      if (latest === undefined) throw replaced(name, version);
      for (const containerId of quiet ? [] : endpoint.containerIds) {
        if (followed.has(containerId)) continue;
        followed.add(containerId);
        void tellOf(clients, containerId, id, done.signal);
      }
    }
  } catch (thrown) {
    if (thrown instanceof CliError || ConnectError.from(thrown).code !== Code.Canceled) throw thrown;
    throw new CliError("failed", `the connection to the node was lost; the deployment of ${name} goes on`, {
      next: `See: oci-node endpoint inspect ${name}`,
    });
  } finally {
    done.abort();
  }
  throw new CliError("failed", `endpoint ${name} was removed`);
}

/** A line for each step of a container of the deployment. */
async function tellOf(
  { containers }: EndpointClients,
  id: string,
  deploymentId: string,
  signal: AbortSignal,
): Promise<void> {
  let told = "";
  const tell = (text: string) => {
    if (text !== told) note(`container ${id}: ${text}`);
    told = text;
  };
  try {
    for await (const { container } of containers.watchContainer({ id }, { signal })) {
      // To its end: a stream that is left in the moment that it ends would keep the connection.
      if (container === undefined || container.deploymentId !== deploymentId) continue;
      if (container.readyAt !== undefined && !hasEnded(container)) tell("answers");
      else if (container.state !== ContainerState.PENDING) tell(stateName(container.state));
      else {
        const { container: whole } = await containers.getContainer({ id }, { signal });
        const why = whole?.events.findLast(({ kind }) => kind === "queue")?.message;
        tell(why === undefined ? "queued" : printable(why));
      }
    }
  } catch {
    // Whoever watches the endpoint tells what is to be told.
  }
}

function failure({ name, active }: Endpoint, { version, reason }: Deployment): CliError {
  const [sentence = "", ...output] = reason.split("\n");
  for (const line of output) note(`  | ${printable(line, 300)}`);
  return new CliError("failed", `version ${version} of ${name} did not come up: ${sentence}`, {
    next: `See more: \`oci-node endpoint logs ${name}\`.${active === undefined ? "" : ` Version ${active.version} goes on.`}`,
  });
}

function replaced(name: string, version: number): CliError {
  return new CliError("failed", `version ${version} of ${name} was replaced before it came up`, {
    next: `See: oci-node endpoint inspect ${name}`,
  });
}
