import { Agent } from "node:https";
import { createSecureContext } from "node:tls";
import { workerName } from "../cluster/names.ts";
import type { WorkerBoot } from "../container/worker-client.ts";
import {
  answered,
  asRefusal,
  broken,
  forwardHeader,
  forwardPrefix,
} from "../runtime/requests/forward-wire.ts";
import type { Forwarded, Forwarding, ForwardRequest } from "../runtime/requests/forwarder.ts";
import { ExchangeError, exchange, type Peer } from "../runtime/requests/http-exchange.ts";
import { headerOf } from "../std/http-headers.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";

/** Less than after what node's server closes a connection that it has nothing to do on (5 s). */
const idleConnectionMs = 3_000;

/** The worker of this process, where there is one: its containers are reached without a detour. */
export interface LocalForwarding {
  readonly workerId: string;
  readonly forwarding: Forwarding;
}

/**
 * Hands requests to the containers of workers: over HTTP/1.1, TLS and connections that are kept, one set per boot of a worker and
 * identity of ours. Whoever answers at a worker's address must have the certificate that was made for that worker.
 */
export class ForwardClients {
  readonly #identity: () => TlsIdentity;
  readonly #local: () => LocalForwarding | undefined;
  readonly #workers = new Map<string, RemoteWorker>();

  /** @param identity what workers are shown: a certificate of the control plane's */
  constructor(identity: () => TlsIdentity, local: () => LocalForwarding | undefined) {
    this.#identity = identity;
    this.#local = local;
  }

  to(worker: WorkerBoot): Forwarding {
    const local = this.#local();
    if (local?.workerId === worker.id) return local.forwarding;
    const identity = this.#identity();
    const known = this.#workers.get(worker.id);
    if (known?.isFor(worker, identity)) return known;
    known?.retire();
    const made = new RemoteWorker(worker, identity);
    this.#workers.set(worker.id, made);
    return made;
  }

  close(): void {
    for (const worker of this.#workers.values()) worker.retire();
  }
}

class RemoteWorker implements Forwarding {
  readonly #boot: string;
  readonly #identity: TlsIdentity;
  readonly #peer: Peer;

  constructor(worker: WorkerBoot, identity: TlsIdentity) {
    this.#boot = bootOf(worker);
    this.#identity = identity;
    const url = URL.parse(worker.address);
    // Without TLS nobody would be asked who he is.
    if (url?.protocol !== "https:")
      throw new ExchangeError("not_begun", `${worker.address} is not https: nothing was sent there`);
    this.#peer = {
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: Number(url.port || 443),
      agent: new Agent({ keepAlive: true, timeout: idleConnectionMs }),
      tls: {
        secureContext: createSecureContext(identity.secureContext()),
        servername: workerName(worker.id),
        minVersion: "TLSv1.2",
      },
    };
  }

  isFor(worker: WorkerBoot, identity: TlsIdentity): boolean {
    return this.#boot === bootOf(worker) && this.#identity === identity;
  }

  /** Connections in use end in their time. */
  retire(): void {
    this.#peer.agent.maxFreeSockets = 0;
  }

  async forward(request: ForwardRequest): Promise<Forwarded> {
    try {
      const answer = await exchange(this.#peer, {
        ...request,
        path: `${forwardPrefix}${request.containerId}${request.path}`,
        askFirst: true,
      });
      const says = headerOf(answer.rawHeaders, forwardHeader);
      if (says === answered) return { kind: "answer", answer };
      answer.resume();
      const why = asRefusal(says);
      if (why !== undefined) return { kind: "refused", why };
      const what =
        says === broken ? "the connection to it broke" : `its worker answered ${answer.statusCode}`;
      throw new ExchangeError("broken", what);
    } catch (error) {
      const unreached =
        error instanceof ExchangeError && error.code === "not_begun" && !request.signal.aborted;
      if (unreached) return { kind: "refused", why: "unreachable" };
      throw error;
    }
  }
}

function bootOf(worker: WorkerBoot): string {
  return `${worker.bootNonce}@${worker.address}`;
}
