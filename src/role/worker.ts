import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import type { Config } from "../config.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { defaultFetchLimits } from "../mount/limits.ts";
import { formatPlatform, hostPlatform } from "../reference/platform.ts";
import { authenticateExactly } from "../rpc/authentication.ts";
import { translateErrors } from "../rpc/error.ts";
import { type Server, serve } from "../rpc/server.ts";
import { AccessGrants } from "../runtime/grants.ts";
import { Runtime } from "../runtime/runtime.ts";
import { SchedulerClient } from "../runtime/scheduler-client.ts";
import { Worker } from "../runtime/worker.ts";
import { workerService } from "../runtime/worker-service.ts";
import { generateBootKey } from "../secret/seal.ts";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { logger } from "../std/log.ts";
import { version } from "../std/version.ts";
import { sleep } from "../std/wait.ts";
import { listenSettings } from "./listening.ts";
import { createRegistryClient } from "./registry-client.ts";
import type { WorkerStores } from "./worker-stores.ts";

/** The role on hosts: mounts images lazily and runs containers on them. */
export interface WorkerRole {
  readonly server: Server;
  /** Stops the containers and unmounts their images. */
  close(): Promise<void>;
  /** Leaves the containers and their images to the next process: this one is to exit now. */
  leave(): Promise<void>;
}

const leaveTimeoutMs = 10_000;
/** Of a reader's deadline: the rest is for the registry. */
const leasePatience = 0.6;
/** How long a request for credentials waits to be a registered worker's, before it is told that nobody answers. */
const registrationPatienceMs = 5_000;

export async function startWorker(
  config: Config,
  { mounts, index }: WorkerStores,
  join_: { readonly schedulerUrl: string; readonly token: string },
): Promise<WorkerRole> {
  const leaving = new AbortController();
  const workerId = await stableWorkerId(config.stateDir);
  const boot = { workerId, bootNonce: randomUUID() };
  const bootKey = await generateBootKey();
  const registered = Promise.withResolvers<void>();
  const { read_deadline: deadlineMs = defaultFetchLimits.deadlineMs } = config.worker;
  const worker = new Worker({
    bootKey,
    leasePatienceMs: deadlineMs * leasePatience,
    mounts,
    registry: createRegistryClient(config),
    index,
    grants: new AccessGrants(),
    stateDir: config.stateDir,
    backgroundFetch: config.worker.background_fetch,
    traces: config.worker.traces,
    runtime: await Runtime.create({
      stateDir: join(config.stateDir, "containers"),
      runtime: config.worker.runtime,
      logger: logger("runtime"),
    }),
    report: async (report) => {
      await registered.promise;
      return await client.report(report);
    },
    freshAccess: async (user, refused) => {
      await Promise.race([registered.promise, sleep(registrationPatienceMs)]);
      return await client.freshAccess(user, refused);
    },
  });
  await worker.adopt();
  const server = await serve({
    ...listenSettings("worker", config.worker, 0),
    interceptors: [translateErrors, authenticateExactly((token) => client.isCallToken(token))],
    routes: (router) => {
      router.service(WorkerService, workerService(worker, boot));
    },
  });
  const client: SchedulerClient = new SchedulerClient({
    url: join_.schedulerUrl,
    joinToken: join_.token,
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
    },
  });
  worker.startHeartbeat(client, await client.register());
  registered.resolve();
  return {
    server,
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

/** A worker keeps its id over restarts: that is how what it ran finds it again. */
async function stableWorkerId(stateDir: string): Promise<string> {
  const path = join(stateDir, "worker-id");
  try {
    const id = readFileSync(path, "utf8").trim();
    if (/^[0-9a-f-]{36}$/.test(id)) return id;
  } catch {
    // The first start: made below.
  }
  const id = randomUUID();
  await writeFileAtomic(path, `${id}\n`, 0o600);
  return id;
}
