import type { Routing } from "../endpoint/endpoint.ts";
import { ForwardClients } from "../endpoint/forward-client.ts";
import { EndpointFront } from "../endpoint/front.ts";
import type { Forwarder } from "../runtime/forwarder.ts";
import type { ControlPlane } from "./control-plane.ts";

/** The worker of this process. */
export interface LocalWorker {
  readonly workerId: string;
  readonly forwarder: Forwarder;
}

/** What answers `/endpoint/NAME` at a gateway. */
export function createFront(
  { tokens, identity }: Pick<ControlPlane, "tokens" | "identity">,
  routing: Routing,
  localWorker: () => LocalWorker | undefined,
): { readonly front: EndpointFront; close(): void } {
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
    close() {
      front.close();
      clients.close();
    },
  };
}
