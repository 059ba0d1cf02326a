import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { workerName } from "../cluster/names.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { closableTransport, renewedTransport } from "../rpc/transport.ts";
import { logger } from "../std/log.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { ContainerError } from "./error.ts";

const log = logger("container");

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

  /**
   * A connection for one stream alone: what its reader leaves lying counts against the whole connection (RFC 9113, 5.2), and
   * would hold up all others.
   */
  apart(worker: WorkerBoot): { readonly client: WorkerClient; close(): void } {
    const { transport, close } = closableTransport({
      url: worker.address,
      serverName: workerName(worker.id),
      tls: this.#identity(),
    });
    return { client: createClient(WorkerService, transport), close };
  }
}

/**
 * What a worker streams over a connection of the stream's own, which ends with it.
 *
 * @param what the stream is: `the output of c-1`
 * @throws ContainerError `worker_away`, `worker_earlier`, as {@link workerFailure}
 */
export async function* streamApart<T>(
  workers: Pick<WorkerClients, "apart">,
  worker: WorkerBoot,
  what: string,
  signal: AbortSignal,
  open: (client: WorkerClient) => AsyncIterable<T>,
): AsyncGenerator<T> {
  let close: (() => void) | undefined;
  try {
    const connection = workers.apart(worker);
    close = connection.close;
    yield* open(connection.client);
  } catch (error) {
    throw workerFailure(error, worker, what, signal);
  } finally {
    close?.();
  }
}

/**
 * What a failed call to a worker is to a user: that a worker does not answer, or does not know what is asked of it, must not look
 * as if this gateway did not.
 *
 * @param what the call was for: `the output of c-1`
 */
export function workerFailure(
  error: unknown,
  worker: WorkerBoot,
  what: string,
  signal: AbortSignal,
): unknown {
  if (signal.aborted || !(error instanceof ConnectError)) return error;
  if (error.code === Code.Unimplemented)
    return new ContainerError(
      "worker_earlier",
      `${what}: worker ${worker.id} is of an earlier version, which does not know how`,
      {
        next: "Upgrade its host: what runs there goes on meanwhile.",
      },
    );
  if (!away.has(error.code)) return error;
  log.warn("a call to a worker failed", { worker: worker.id, what, code: Code[error.code] });
  return new ContainerError("worker_away", `${what}: worker ${worker.id} does not answer`, {
    next: "See how it is with `oci-node worker ls`; try again when its host is back. If it will not be: `oci-node worker revoke` ends what it had.",
  });
}

/** A peer that dies on HTTP/2 shows as `Canceled`; one whose certificate is not the worker's, as `Internal` or `Unknown`. */
const away: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Canceled,
  Code.DeadlineExceeded,
  Code.Internal,
  Code.Unknown,
]);
