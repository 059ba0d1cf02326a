import { randomUUID } from "node:crypto";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import type { ClusterError } from "../cluster/error.ts";
import { IdentityFiles } from "../cluster/identity-files.ts";
import type { JoinToken } from "../cluster/join-token.ts";
import { clusterErrorOf, Membership } from "../cluster/membership-client.ts";
import { isControlPlane } from "../cluster/names.ts";
import { type Config, workspaceSettings } from "../config.ts";
import { parsePortRange } from "../container/policy.ts";
import { requestVersionNow } from "../container/request-version.ts";
import { CredentialError } from "../credential/error.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { defaultFetchLimits } from "../mount/limits.ts";
import { formatPlatform, hostPlatform } from "../reference/platform.ts";
import { authenticateCertificate } from "../rpc/certificate-authentication.ts";
import { translateErrors } from "../rpc/error.ts";
import { type Server, serve } from "../rpc/server.ts";
import { HandlerCode } from "../runtime/code/handler-code.ts";
import { AccessGrants } from "../runtime/image/grants.ts";
import { answerForward } from "../runtime/requests/forward-service.ts";
import type { Forwarder } from "../runtime/requests/forwarder.ts";
import { Runtime } from "../runtime/runtime.ts";
import { SchedulerClient } from "../runtime/scheduler-client.ts";
import { Worker } from "../runtime/worker.ts";
import { workerService } from "../runtime/worker-service.ts";
import { runnerFiles, runnerPath } from "../sdk/runner/files.ts";
import { generateBootKey } from "../secret/seal.ts";
import { logger } from "../std/log.ts";
import { version } from "../std/version.ts";
import { sleep } from "../std/wait.ts";
import { leaveFormerId, type Succeed } from "./former-worker.ts";
import { listenAddress } from "./listening.ts";
import { networkSettings } from "./network-settings.ts";
import { createRegistryClient } from "./registry-client.ts";
import type { WorkerStores } from "./worker-stores.ts";

/** The role on hosts: mounts images lazily and runs containers on them. */
export interface WorkerRole {
  readonly server: Server;
  readonly workerId: string;
  /** Its containers that serve HTTP. */
  readonly forwarder: Forwarder;
  /** Stops the containers and unmounts their images. */
  close(): Promise<void>;
  /** Leaves the containers and their images to the next process: this one is to exit now. */
  leave(): Promise<void>;
}

const log = logger("worker");
const leaveTimeoutMs = 10_000;
/** Of a reader's deadline: the rest is for the registry. */
const leasePatience = 0.6;
/** How long a request for credentials waits to be a registered worker's, before it is told that nobody answers. */
const registrationPatienceMs = 5_000;

export async function startWorker(
  config: Config,
  { mounts, index }: WorkerStores,
  join_: {
    readonly schedulerUrl: string;
    readonly token: () => JoinToken;
    /** Ends the waiting for a scheduler: what was adopted is ended then, as at any other end. */
    readonly signal: AbortSignal;
    /** Only where the scheduler is in this process. */
    readonly succeed?: Succeed | undefined;
  },
): Promise<WorkerRole> {
  const leaving = new AbortController();
  const endWaiting = () => leaving.abort(join_.signal.reason);
  join_.signal.addEventListener("abort", endWaiting);
  if (join_.signal.aborted) endWaiting();
  const files = await IdentityFiles.open(join(config.stateDir, "identity"));
  const { workerId } = files;
  const boot = { workerId, bootNonce: randomUUID() };
  const bootKey = await generateBootKey();
  let client: SchedulerClient | undefined;
  const registered = Promise.withResolvers<void>();
  const { read_deadline: deadlineMs = defaultFetchLimits.deadlineMs } = config.worker;
  const worker = new Worker({
    bootKey,
    leasePatienceMs: deadlineMs * leasePatience,
    mounts,
    registry: createRegistryClient(config),
    index,
    grants: new AccessGrants(),
    backgroundFetch: config.worker.background_fetch,
    traces: config.worker.traces,
    code: await HandlerCode.open({
      dir: join(config.stateDir, "code"),
      quotaBytes: config.worker.code_cache_quota,
      unpackedBytesMax: config.endpoints.code_unpacked_max,
      runner: { files: runnerFiles, path: runnerPath },
      fetchPiece: async (...wanted) => {
        await Promise.race([registered.promise, sleep(registrationPatienceMs)]);
        if (client === undefined) throw notRegistered();
        return await client.fetchCode(...wanted);
      },
    }),
    runtime: await Runtime.create({
      stateDir: join(config.stateDir, "containers"),
      runtime: config.worker.runtime,
      network: networkSettings(config.worker.network),
      storageLimitBytes: config.worker.storage_limit,
      userNamespaces: config.worker.user_namespaces,
      logger: logger("runtime"),
    }),
    hostPaths: (workspace) => workspaceSettings(config, workspace).host_paths,
    publish: (workspace) => workspaceSettings(config, workspace).publish.map(parsePortRange),
    report: async (report) => {
      await registered.promise;
      return (await client?.report(report)) ?? false;
    },
    freshAccess: async (user, refused, starting) => {
      await Promise.race([registered.promise, sleep(registrationPatienceMs)]);
      if (client === undefined) throw notRegistered();
      return await client.freshAccess(user, refused, starting);
    },
  });
  await worker.adopt();
  const membership = new Membership({
    files,
    url: join_.schedulerUrl,
    name: config.workerName,
    joinToken: join_.token,
    signal: leaving.signal,
  });
  // Revoked while it was away: what runs here is nobody's any more, and would go on without end.
  const endForGood = async (error: unknown): Promise<never> => {
    if (join_.signal.aborted || clusterErrorOf(error)?.code === "revoked") {
      registered.resolve();
      await worker.giveUp();
      await mounts.close();
    }
    throw error;
  };
  await membership.begin().catch(endForGood);
  await leaveFormerId(config.stateDir, { workerId, containerIds: worker.containerIds() }, join_.succeed);
  const server = await serve({
    ...listenAddress(config.worker, 0),
    tls: { identity: membership.identity, clients: "required" },
    interceptors: [translateErrors, authenticateCertificate({ controlPlane: isControlPlane })],
    first: answerForward(worker.forwarder, isControlPlane),
    routes: (router) => {
      router.service(WorkerService, workerService(worker, boot));
    },
  });
  let revoked = false;
  const onRevoked = ({ message, next }: ClusterError) => {
    if (revoked) return;
    revoked = true;
    registered.resolve();
    log.error("this worker was revoked: its containers are ended, and it gets no more", {
      error: message,
      next,
    });
    void worker.giveUp();
  };
  client = new SchedulerClient({
    url: join_.schedulerUrl,
    member: membership,
    onRevoked,
    signal: leaving.signal,
    containerIds: () => worker.containerIds(),
    facts: {
      ...boot,
      name: config.workerName,
      address: server.url,
      bootPublicKey: bootKey.publicKey,
      cpuMillis: Math.round((config.worker.cpu ?? availableParallelism()) * 1000),
      memoryBytes: config.worker.memory ?? totalmem(),
      platform: formatPlatform(hostPlatform()),
      version,
      requestVersion: requestVersionNow,
    },
  });
  worker.startHeartbeat(client, await client.register().catch(endForGood));
  join_.signal.removeEventListener("abort", endWaiting);
  registered.resolve();
  void membership.keepFresh({ renewed: (identity) => server.renew(identity), revoked: onRevoked });
  return {
    server,
    workerId,
    forwarder: worker.forwarder,
    async close() {
      await worker.close();
      leaving.abort();
      await server.close();
      await mounts.close();
    },
    async leave() {
      await worker.leave(leaveTimeoutMs);
      leaving.abort();
      await server.close();
    },
  };
}

/** Of a worker that waits for its scheduler: a reader may be answered later. */
function notRegistered(): CredentialError {
  return new CredentialError("provider_unreachable", "this worker has not reached its scheduler yet", {
    next: "Check that the scheduler runs and that this worker reaches it; it is asked again by itself.",
  });
}
