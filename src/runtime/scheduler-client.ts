import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import type { ClusterError } from "../cluster/error.ts";
import { clusterErrorOf } from "../cluster/membership-client.ts";
import { schedulerName } from "../cluster/names.ts";
import type { ImageTransfer, NewContainerEvent } from "../container/container.ts";
import { fromWireImageCredential } from "../container/credential-wire-service.ts";
import type { PublishedPort } from "../container/options.ts";
import { toWirePort } from "../container/options-wire-service.ts";
import type { ContainerState } from "../container/state.ts";
import { fromWireTime, toWireState, toWireTransfer } from "../container/wire-service.ts";
import { CredentialError } from "../credential/error.ts";
import { ContainerState as WireState } from "../gen/oci_node/v1/container_service_pb.ts";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import { SchedulerService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { renewedTransport } from "../rpc/transport.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { sleep } from "../std/wait.ts";
import { RuntimeError } from "./error.ts";
import type { ImageAccess, ImageUser } from "./image/image-access.ts";

const log = logger("worker");
const retryFirstMs = 100;
const retryMostMs = 5_000;
const callTimeoutMs = 10_000;

/** What a worker says of itself when it registers. */
export interface WorkerFacts {
  readonly workerId: string;
  readonly name: string;
  readonly address: string;
  readonly bootPublicKey: Uint8Array;
  readonly bootNonce: string;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly platform: string;
  readonly version: string;
  readonly requestVersion: number;
}

/** What a worker reports of a container; without a state, events and phases alone. */
export interface Report {
  readonly containerId: string;
  readonly attempt: number;
  readonly state?: ContainerState;
  readonly at?: Date;
  readonly exitCode?: number;
  readonly signal?: string;
  readonly oomKilled?: boolean;
  readonly reason?: string;
  readonly phases?: Readonly<Record<string, Date>>;
  readonly events?: readonly NewContainerEvent[];
  readonly transfer?: ImageTransfer;
  readonly address?: string | undefined;
  readonly ports?: readonly PublishedPort[] | undefined;
  readonly restarts?: number | undefined;
}

/** What happened, apart from whose it is and what has gathered beside it. */
export type ReportedStep = Omit<Report, "containerId" | "attempt" | "events" | "phases">;

export interface Heartbeat {
  readonly cpuMillisUsed: number;
  readonly memoryBytesUsed: number;
  readonly containerIds: readonly string[];
  /** Of containers that it holds no more, but whose output it has. */
  readonly outputIds: readonly string[];
}

export interface HeartbeatAnswer {
  /** Containers that are not this worker's, or have ended. */
  readonly remove: readonly string[];
  /** Of those with output, whom nobody knows any more. */
  readonly forgotten: readonly string[];
}

/** The worker's place in the cluster: what it calls with. */
export interface Member {
  readonly identity: TlsIdentity;
  /** For a scheduler that does not take the certificate. Throws ClusterError. */
  joinAgain(): Promise<void>;
}

/** A worker's side of SchedulerService: every call is tried again until it is through or the signal aborts. */
export class SchedulerClient {
  readonly #client: Client<typeof SchedulerService>;
  readonly #facts: WorkerFacts;
  readonly #containerIds: () => readonly string[];
  readonly #signal: AbortSignal;
  readonly #member: Member;
  readonly #onRevoked: (error: ClusterError) => void;

  constructor(options: {
    readonly url: string;
    readonly member: Member;
    /** The scheduler takes nothing from this worker any more, and gives it nothing. May come several times. */
    readonly onRevoked: (error: ClusterError) => void;
    readonly facts: WorkerFacts;
    /** The containers that are here, asked at each registration. */
    readonly containerIds: () => readonly string[];
    readonly signal: AbortSignal;
  }) {
    this.#client = createClient(
      SchedulerService,
      renewedTransport({
        url: options.url,
        serverName: schedulerName,
        identity: () => options.member.identity,
      }),
    );
    this.#member = options.member;
    this.#onRevoked = options.onRevoked;
    this.#facts = options.facts;
    this.#containerIds = options.containerIds;
    this.#signal = options.signal;
  }

  /** Returns the heartbeat interval in milliseconds. */
  async register(): Promise<number> {
    const response = await this.#persist("register", () =>
      this.#client.registerWorker(
        {
          ...this.#facts,
          memoryBytes: BigInt(this.#facts.memoryBytes),
          containerIds: [...this.#containerIds()],
        },
        { timeoutMs: callTimeoutMs, signal: this.#signal },
      ),
    );
    return response.heartbeatIntervalMs;
  }

  /** One heartbeat, not repeated; registers again where that is asked. */
  async heartbeat(beat: Heartbeat): Promise<HeartbeatAnswer> {
    const { workerId, bootNonce, requestVersion } = this.#facts;
    const request = {
      workerId,
      bootNonce,
      requestVersion,
      cpuMillisUsed: beat.cpuMillisUsed,
      memoryBytesUsed: BigInt(beat.memoryBytesUsed),
      containerIds: [...beat.containerIds],
      outputContainerIds: [...beat.outputIds],
    };
    const response = await this.#client
      .heartbeat(request, { timeoutMs: callTimeoutMs, signal: this.#signal })
      .catch((error: unknown) => {
        throw this.#noteRevoked(error);
      });
    if (response.registerAgain) await this.register();
    return { remove: response.removeContainerIds, forgotten: response.forgottenContainerIds };
  }

  /** Reports, whatever it takes. False: the scheduler says that the container is not this worker's (any more). */
  async report(report: Report): Promise<boolean> {
    const { workerId, bootNonce } = this.#facts;
    try {
      await this.#persist("report", () =>
        this.#client.reportContainer(
          {
            workerId,
            bootNonce,
            containerId: report.containerId,
            attempt: report.attempt,
            state: report.state === undefined ? WireState.UNSPECIFIED : toWireState(report.state),
            ...(report.exitCode === undefined ? {} : { exitCode: report.exitCode }),
            signal: report.signal ?? "",
            address: report.address ?? "",
            ports: (report.ports ?? []).map(toWirePort),
            ...(report.restarts === undefined ? {} : { restarts: report.restarts }),
            oomKilled: report.oomKilled ?? false,
            reason: report.reason ?? "",
            at: timestampFromDate(report.at ?? new Date()),
            phases: Object.entries(report.phases ?? {}).map(([name, at]) => ({
              name,
              at: timestampFromDate(at),
            })),
            events: (report.events ?? []).map((event) => ({
              at: timestampFromDate(event.at ?? new Date()),
              kind: event.kind,
              message: event.message,
              fields: { ...event.fields },
            })),
            ...(report.transfer === undefined ? {} : { transfer: toWireTransfer(report.transfer) }),
          },
          { timeoutMs: callTimeoutMs, signal: this.#signal },
        ),
      );
      return true;
    } catch (error) {
      if (clusterErrorOf(error)?.code === "revoked") return false;
      if (isDisowned(ConnectError.from(error))) return false;
      throw error;
    }
  }

  /**
   * The access to the image of a container that runs here, as it is now. Asked once: the lease tries again.
   *
   * @param refused the registry does not take what the container has
   * @param starting what is given is to prove access
   * @throws CredentialError `provider_failed` when there is none, or the container does not run here;
   *   `provider_unreachable` when nobody can say now
   */
  async freshAccess(user: ImageUser, refused: boolean, starting: boolean): Promise<ImageAccess> {
    const { workerId, bootNonce } = this.#facts;
    const { containerId, attempt, workspaceId } = user;
    try {
      const fresh = await this.#client.refreshImageCredentials(
        { workerId, bootNonce, containerId, attempt, refused, starting },
        { timeoutMs: callTimeoutMs, signal: this.#signal },
      );
      const { requestId } = fresh;
      const expiresAt = fromWireTime(fresh.credentialsExpireAt) ?? new Date(0);
      return {
        containerId,
        workspaceId,
        imageReference: fresh.imageReference,
        manifestDigest: fresh.manifestDigest,
        sealedCredentials: fresh.imageCredentials,
        sealContext: { requestId, containerId, workerId, bootNonce, expiresAt },
        absentReason: fresh.credentialsAbsentReason,
        credential: fromWireImageCredential(fresh.imageCredential),
        provedAgoMs: Number(fresh.provedAgoMs),
      };
    } catch (error) {
      throw noAccess(ConnectError.from(this.#noteRevoked(error)));
    }
  }

  /**
   * A piece of the code of a container that runs here, from 0, with how many there are; as often as it takes while the
   * scheduler is away.
   * @throws RuntimeError `code` when it gives none
   */
  async fetchCode(
    containerId: string,
    sha256: string,
    position: number,
    signal: AbortSignal,
  ): Promise<{ readonly data: Uint8Array; readonly pieces: number }> {
    const { workerId, bootNonce } = this.#facts;
    const either = AbortSignal.any([signal, this.#signal]);
    const request = { workerId, bootNonce, containerId, sha256, position };
    const call = () => this.#client.fetchCode(request, { timeoutMs: callTimeoutMs, signal: either });
    try {
      return await this.#persist("code", call, either);
    } catch (error) {
      signal.throwIfAborted();
      throw noCode(ConnectError.from(error));
    }
  }

  /** Tries again what may pass; what the scheduler refuses is thrown. */
  async #persist<T>(what: string, call: () => Promise<T>, signal = this.#signal): Promise<T> {
    for (let delayMs = retryFirstMs; ; delayMs = Math.min(retryMostMs, delayMs * 2)) {
      try {
        return await call();
      } catch (error) {
        const failure = ConnectError.from(this.#noteRevoked(error));
        const { code, rawMessage } = failure;
        if (signal.aborted) throw error;
        if (clusterErrorOf(error)?.code === "not_joined") await this.#joinAgain(what);
        else if (!mayPass(failure)) throw error;
        log.warn("the scheduler does not answer", { what, code: Code[code], error: rawMessage });
        await sleep(delayMs, signal);
      }
    }
  }

  /** At its first registration a worker that cannot join is told so; later what it has to say is kept until it can. */
  async #joinAgain(what: string): Promise<void> {
    try {
      await this.#member.joinAgain();
    } catch (error) {
      if (what === "register" || this.#signal.aborted) throw error;
      log.error("the cluster does not let this worker in", { what, error: messageOf(error) });
    }
  }

  #noteRevoked<T>(error: T): T {
    const known = clusterErrorOf(error);
    if (known?.code === "revoked") this.#onRevoked(known);
    return error;
  }
}

/** A peer that dies on HTTP/2 shows as `Canceled`: if it was not our signal, the connection was lost. */
const passing: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.Canceled,
  Code.DeadlineExceeded,
  Code.Internal,
  Code.Unknown,
  Code.ResourceExhausted,
]);

/**
 * Whether a failed call may succeed later. `Aborted` is that, too, unless the scheduler itself says it of a container: a
 * connection that is reset in the middle of a call shows as `Aborted` (connect-node's node-error), and a database that gives
 * way as well.
 */
function mayPass(error: ConnectError): boolean {
  return passing.has(error.code) || (error.code === Code.Aborted && !isDisowned(error));
}

/** The scheduler, and no connection or database, says that the container is not this worker's (any more). */
function isDisowned(error: ConnectError): boolean {
  const [detail] = error.findDetails(ErrorDetailSchema);
  if (detail?.room !== "container" && detail?.room !== "scheduler") return false;
  const { code } = error;
  return code === Code.NotFound || code === Code.FailedPrecondition || code === Code.Aborted;
}

/** What the scheduler said of a credential, in the words that it was said in; anything else may be over soon. */
function noAccess(error: ConnectError): CredentialError {
  const { code, rawMessage } = error;
  const [detail] = error.findDetails(ErrorDetailSchema);
  const next = detail?.next || undefined;
  if (detail?.room === "cluster" && code === Code.PermissionDenied)
    return new CredentialError("provider_failed", `no new image credentials: ${rawMessage}`, { next });
  if (detail?.room === "scheduler" && code === Code.PermissionDenied)
    return new CredentialError("provider_failed", `no new image credentials: ${rawMessage}`, { next });
  if (detail !== undefined && speaking.has(detail.room)) {
    const answered = code !== Code.Unavailable && code !== Code.ResourceExhausted;
    return new CredentialError(answered ? "provider_failed" : "provider_unreachable", rawMessage, { next });
  }
  return new CredentialError(
    "provider_unreachable",
    `the scheduler gives no credential for the image now (${Code[code]})`,
    { next: "Check that the scheduler runs and that this worker reaches it; it is asked again by itself." },
  );
}

function noCode(error: ConnectError): RuntimeError {
  const { code, rawMessage } = error;
  const [detail] = error.findDetails(ErrorDetailSchema);
  const why = detail === undefined ? `the scheduler does not give it (${Code[code]})` : rawMessage;
  return new RuntimeError("code", `the code could not be fetched: ${why}`, {
    next: detail?.next || undefined,
  });
}

/** The rooms whose errors are about the credential. */
const speaking: ReadonlySet<string> = new Set(["credential", "registry", "secret"]);
