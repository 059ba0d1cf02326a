import type { Routing } from "../endpoint/endpoint.ts";
import { ForwardClients } from "../endpoint/forward-client.ts";
import { EndpointFront } from "../endpoint/front.ts";
import type { Forwarder } from "../runtime/requests/forwarder.ts";
import type { ControlPlane } from "./control-plane.ts";

/** The worker of this process. */
export interface LocalWorker {
  readonly workerId: string;
  readonly forwarder: Forwarder;
}

/** What answers `/endpoint/NAME` at a gateway. */
export interface Front {
  readonly front: EndpointFront;
  /** What it counted of a workspace, or of all: Prometheus' text. */
  metrics(workspaceId: string | undefined): Promise<string>;
  close(): void;
}

export function createFront(
  { tokens, identity, workspaces }: Pick<ControlPlane, "tokens" | "identity" | "workspaces">,
  routing: Routing,
  localWorker: () => LocalWorker | undefined,
): Front {
  const clients = new ForwardClients(
    () => identity.current,
    () => {
      const worker = localWorker();
      return worker === undefined ? undefined : { workerId: worker.workerId, forwarding: worker.forwarder };
    },
  );
  const front = new EndpointFront({
    routing,
    verify: (token) => tokens.verify(token),
    forwardingTo: (worker) => clients.to(worker),
  });
  return {
    front,
    async metrics(workspaceId) {
      const all = (await workspaces.list()).filter(
        ({ id }) => workspaceId === undefined || id === workspaceId,
      );
      const names = new Map(all.map(({ id, name }) => [id, name]));
      return front.metrics.text(names, (deploymentId) => front.dispatcher.demand(deploymentId));
    },
    close() {
      front.close();
      clients.close();
    },
  };
}
