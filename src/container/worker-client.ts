import { type Client, createClient } from "@connectrpc/connect";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { transportTo } from "../rpc/transport.ts";

/** One boot of a worker, as it registered. */
export interface WorkerBoot {
  readonly id: string;
  readonly address: string;
  readonly bootNonce: string;
}

export type WorkerClient = Client<typeof WorkerService>;

/** Connections to workers, one per boot; what a boot before had is forgotten. */
export class WorkerClients {
  readonly #callToken: (workerId: string, bootNonce: string) => string;
  readonly #clients = new Map<string, { readonly boot: string; readonly client: WorkerClient }>();

  /** @param callToken what schedulers and gateways present to a boot of a worker; derived, never stored */
  constructor(callToken: (workerId: string, bootNonce: string) => string) {
    this.#callToken = callToken;
  }

  to(worker: WorkerBoot): WorkerClient {
    const boot = `${worker.bootNonce}@${worker.address}`;
    const known = this.#clients.get(worker.id);
    if (known?.boot === boot) return known.client;
    const token = this.#callToken(worker.id, worker.bootNonce);
    const client = createClient(WorkerService, transportTo({ url: worker.address, token }));
    this.#clients.set(worker.id, { boot, client });
    return client;
  }
}
