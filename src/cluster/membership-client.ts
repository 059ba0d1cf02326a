import { X509Certificate } from "node:crypto";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import { JoinService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { fetchUnverified } from "../rpc/fetch-unverified.ts";
import { clusterTransport } from "../rpc/transport.ts";
import { CodedError, messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { sleep } from "../std/wait.ts";
import { backdateMs } from "./certificate.ts";
import { ClusterError } from "./error.ts";
import type { IdentityFiles } from "./identity-files.ts";
import { authoritiesIn, type JoinToken, pinnedAuthority } from "./join-token.ts";
import { schedulerName } from "./names.ts";

const log = logger("worker");
const callTimeoutMs = 10_000;
const retryFirstMs = 200;
const retryMostMs = 30_000;
/** Of half a life, to both sides, so that hosts that started together do not renew together. */
const jitter = 0.1;
/** Where schedulers tell who their authorities are. */
export const authoritiesPath = "/.well-known/oci-node/authorities.pem";

export interface MembershipOptions {
  readonly files: IdentityFiles;
  /** `https://host:port` of the scheduler. */
  readonly url: string;
  /** The worker's, for people. */
  readonly name: string;
  /** Read when it is needed: at the first join, and when a certificate has expired. Throws where there is none. */
  readonly joinToken: () => JoinToken;
  readonly signal: AbortSignal;
}

/** A worker's place in its cluster: gets its certificate by a join token, and renews it by the certificate itself. */
export class Membership {
  readonly workerId: string;
  readonly #options: MembershipOptions;
  #identity: TlsIdentity | undefined;
  #joining: Promise<void> | undefined;

  constructor(options: MembershipOptions) {
    this.#options = options;
    this.workerId = options.files.workerId;
  }

  /** What is shown to schedulers and gateways now; only after {@link begin}. */
  get identity(): TlsIdentity {
    if (this.#identity === undefined) throw new ClusterError("not_joined", "this worker has not joined yet");
    return this.#identity;
  }

  /**
   * Has a certificate that counts when it resolves: the one that is here, or one that it joins for, waiting for a scheduler
   * that does not answer. Throws ClusterError.
   */
  async begin(): Promise<void> {
    const saved = await this.#options.files.saved();
    if (saved !== undefined && !this.#isMeantForAnother(saved)) {
      this.#identity = saved;
      return;
    }
    await this.joinAgain();
  }

  /** As {@link begin}, for a scheduler that does not know the certificate: joins, whatever is here. Throws ClusterError. */
  async joinAgain(): Promise<void> {
    this.#joining ??= this.#persist("join", () => this.#join()).finally(() => {
      this.#joining = undefined;
    });
    await this.#joining;
  }

  /** Renews at half of each certificate's life until the signal aborts, or the worker was revoked. */
  async keepFresh(on: {
    readonly renewed: (identity: TlsIdentity) => void;
    readonly revoked: (error: ClusterError) => void;
  }): Promise<void> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      try {
        await sleep(renewInMs(this.identity), signal);
        await this.#persist("renew", () => this.#renew());
        on.renewed(this.identity);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ClusterError && error.code === "revoked") {
          on.revoked(error);
          return;
        }
        // Such as a join token that is not there: somebody may put it there.
        const { next } = error as { next?: string };
        log.error("this worker's certificate could not be renewed", { error: messageOf(error), next });
        await sleep(retryMostMs, signal).catch(() => undefined);
      }
    }
  }

  /** The operator has since given a join token of another cluster. */
  #isMeantForAnother({ authorities }: TlsIdentity): boolean {
    try {
      const { authority } = this.#options.joinToken();
      return !authoritiesIn(authorities).some(({ id }) => id === authority);
    } catch {
      return false;
    }
  }

  async #join(): Promise<void> {
    const { files, url, name, joinToken, signal } = this.#options;
    const { token, authority } = joinToken();
    const given = await fetchAuthorities(url, signal);
    const { certificate } = pinnedAuthority(given, authority, url);
    const transport = clusterTransport({
      url,
      serverName: schedulerName,
      tls: { authorities: certificate },
      token,
    });
    const request = { certificateRequest: await files.request(), name };
    const joined = await createClient(JoinService, transport).joinCluster(request, {
      timeoutMs: callTimeoutMs,
      signal,
    });
    this.#identity = await files.save(joined.certificate, joined.authorities);
    log.info("joined the cluster", { worker: this.workerId, until: endOf(this.identity).toISOString() });
  }

  async #renew(): Promise<void> {
    const { files, url, signal } = this.#options;
    // With an expired one there is only the way in which it came.
    if (!(endOf(this.identity).getTime() > Date.now())) return await this.#join();
    const transport = clusterTransport({ url, serverName: schedulerName, tls: this.identity });
    const request = { certificateRequest: await files.request() };
    try {
      const renewed = await createClient(JoinService, transport).renewCertificate(request, {
        timeoutMs: callTimeoutMs,
        signal,
      });
      this.#identity = await files.save(renewed.certificate, renewed.authorities);
      log.info("certificate renewed", { worker: this.workerId, until: endOf(this.identity).toISOString() });
    } catch (error) {
      if (clusterErrorOf(error)?.code !== "not_joined") throw error;
      await this.#join();
    }
  }

  /** Tries again while nobody answers; what was answered is thrown as a ClusterError. */
  async #persist(what: string, call: () => Promise<void>): Promise<void> {
    const { url, signal } = this.#options;
    for (let delayMs = retryFirstMs; ; delayMs = Math.min(retryMostMs, delayMs * 2)) {
      try {
        await call();
        return;
      } catch (error) {
        signal.throwIfAborted();
        // What this host itself lacks, such as the join token.
        if (error instanceof CodedError && !(error instanceof ClusterError)) throw error;
        const failure = clusterErrorOf(error) ?? asClusterError(error, url);
        if (failure.code !== "unreachable") throw failure;
        const { message, next } = failure;
        log.warn("the scheduler does not answer", { what, url, error: message, next });
        await sleep(delayMs * (1 + Math.random() * jitter), signal);
      }
    }
  }
}

/** What a scheduler said of a worker's place in the cluster; undefined when it spoke of something else, or did not. */
export function clusterErrorOf(error: unknown): ClusterError | undefined {
  if (error instanceof ClusterError) return error;
  if (!(error instanceof ConnectError)) return undefined;
  const [detail] = error.findDetails(ErrorDetailSchema);
  if (detail?.room === "cluster") {
    const code = (["revoked", "not_joined"] as const).find((known) => known === detail.code) ?? "bad_request";
    return new ClusterError(code, error.rawMessage, { next: detail.next || undefined });
  }
  // Of a certificate that is not taken: it expired, or another cluster's authority made it.
  if (error.code === Code.Unauthenticated)
    return new ClusterError("not_joined", error.rawMessage, { next: tokenNext });
  return undefined;
}

const tokenNext = "Give the worker a join token that counts: `oci-node token create --role worker`.";

function asClusterError(error: unknown, url: string): ClusterError {
  const { code, rawMessage } = ConnectError.from(error);
  if (code === Code.PermissionDenied)
    return new ClusterError("bad_token", `the scheduler refuses the join token: ${rawMessage}`, {
      next: tokenNext,
    });
  if (/CERT|ALTNAME|SELF_SIGNED|certificate/i.test(`${(error as { code?: unknown }).code} ${rawMessage}`)) {
    return new ClusterError(
      "wrong_authority",
      `${url} shows a certificate that is not of this worker's cluster`,
      {
        next: "Check worker.scheduler_url. If the cluster is a new one: give the worker a join token of it.",
      },
    );
  }
  // Both were so in earlier versions, and are so at addresses of something else.
  const odd = /WRONG_VERSION_NUMBER|HTTP 404/.exec(rawMessage)?.[0];
  if (odd !== undefined) {
    const how = odd === "HTTP 404" ? "names no authorities (HTTP 404)" : "does not speak TLS";
    return new ClusterError("unreachable", `${url} ${how}: a scheduler of an earlier version, or none`, {
      next: "Check worker.scheduler_url, and upgrade gateways and schedulers before workers; it is asked again by itself.",
    });
  }
  return new ClusterError("unreachable", `${url}: ${rawMessage}`);
}

async function fetchAuthorities(url: string, signal: AbortSignal): Promise<string> {
  return await fetchUnverified(new URL(authoritiesPath, url).href, signal);
}

function endOf({ certificate }: TlsIdentity): Date {
  return new Date(new X509Certificate(certificate).validTo);
}

/** Half of the life that it was made with, give or take a tenth; at once when that is past. */
function renewInMs({ certificate }: TlsIdentity): number {
  const { validFrom, validTo } = new X509Certificate(certificate);
  const madeAt = Date.parse(validFrom) + backdateMs;
  const lifeMs = Date.parse(validTo) - madeAt;
  const part = 0.5 * (1 + (Math.random() * 2 - 1) * jitter);
  return Math.max(0, madeAt + lifeMs * part - Date.now());
}
