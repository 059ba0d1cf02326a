import { type Client, createClient } from "@connectrpc/connect";
import { workerName } from "../cluster/names.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { renewedTransport } from "../rpc/transport.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";

/** One boot of a worker, as it registered. */
export interface WorkerBoot {
  readonly id: string;
  readonly address: string;
  readonly bootNonce: string;
}

export type WorkerClient = Client<typeof WorkerService>;

/**
 * Connections to workers, one per boot; what a boot before had is forgotten. Whoever answers at a worker's address must
 * have the certificate that was made for that worker.
 */
export class WorkerClients {
  readonly #identity: () => TlsIdentity;
  readonly #clients = new Map<string, { readonly boot: string; readonly client: WorkerClient }>();

  /** @param identity what workers are shown: a certificate of the control plane's */
  constructor(identity: () => TlsIdentity) {
    this.#identity = identity;
  }

  to(worker: WorkerBoot): WorkerClient {
    const boot = `${worker.bootNonce}@${worker.address}`;
    const known = this.#clients.get(worker.id);
    if (known?.boot === boot) return known.client;
    const transport = renewedTransport({
      url: worker.address,
      serverName: workerName(worker.id),
      identity: this.#identity,
    });
    const client = createClient(WorkerService, transport);
    this.#clients.set(worker.id, { boot, client });
    return client;
  }
}
