import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import type { CodeStore } from "../container/code-store.ts";
import type { Container, Phases } from "../container/container.ts";
import { toWireImageCredential } from "../container/credential-wire-service.ts";
import { ContainerError } from "../container/error.ts";
import type { HousekeepingStore } from "../container/housekeeping-store.ts";
import { fromWirePort } from "../container/options-wire-service.ts";
import { type ContainerState, isEnded } from "../container/state.ts";
import type { ContainerStore } from "../container/store.ts";
import type { Observation } from "../container/transition-store.ts";
import { fromWireState, fromWireTime, fromWireTransfer } from "../container/wire-service.ts";
import type {
  RefreshImageCredentialsRequest,
  ReportContainerRequest,
  SchedulerService,
} from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { referenceOf } from "../image/image.ts";
import type { ImageStore } from "../image/store.ts";
import { badRequest } from "../rpc/request-json.ts";
import { logger } from "../std/log.ts";
import { type AttachDependencies, attachCredentials } from "./attach.ts";
import { bootOf } from "./boot.ts";
import { codeMethods } from "./code-service.ts";
import { SchedulerError } from "./error.ts";
import { heartbeatIntervalMs } from "./loop.ts";
import { recoverContainers } from "./recovery.ts";
import type { SchedulerStore } from "./store.ts";

const log = logger("scheduler");
const outputIdsMax = 500;

export interface SchedulerServiceDependencies extends AttachDependencies {
  readonly store: SchedulerStore;
  readonly images: ImageStore;
  readonly containers: ContainerStore;
  readonly housekeeping: Pick<HousekeepingStore, "unknown">;
  readonly codes: Pick<CodeStore, "piece">;
}

/** Answers SchedulerService to workers. */
export function schedulerService(
  dependencies: SchedulerServiceDependencies,
): ServiceImpl<typeof SchedulerService> {
  const { store, containers, housekeeping } = dependencies;
  return {
    ...codeMethods(dependencies),
    async registerWorker(request) {
      assertAddress(request.address);
      await store.register({
        id: request.workerId,
        name: request.name,
        address: request.address,
        bootPublicKey: request.bootPublicKey,
        bootNonce: request.bootNonce,
        cpuMillis: request.cpuMillis,
        memoryBytes: Number(request.memoryBytes),
        platform: request.platform,
        version: request.version,
        requestVersion: request.requestVersion,
      });
      log.info("worker registered", {
        worker: request.workerId,
        name: request.name,
        address: request.address,
      });
      const known = new Set(request.containerIds);
      const gone = (await store.containersOn(request.workerId)).filter(({ id }) => !known.has(id));
      await recoverContainers(containers, gone, "its worker restarted and the container was gone");
      return { heartbeatIntervalMs };
    },
    async heartbeat(request) {
      const { workerId, bootNonce, cpuMillisUsed, memoryBytesUsed, containerIds, requestVersion } = request;
      const seen = { cpuMillis: cpuMillisUsed, memoryBytes: Number(memoryBytesUsed), requestVersion };
      if (!(await store.heartbeat(workerId, bootNonce, seen))) return { registerAgain: true };
      return {
        removeContainerIds: await notItsOwn(containers, workerId, containerIds),
        forgottenContainerIds: await housekeeping.unknown(request.outputContainerIds.slice(0, outputIdsMax)),
      };
    },
    async reportContainer(request) {
      await bootOf(store, request);
      await record(containers, request);
      return {};
    },
    async refreshImageCredentials(request, context) {
      const worker = await bootOf(store, request);
      const container = await runningOn(containers, request);
      const image = await dependencies.images.get(container.workspaceId, container.imageId);
      const attached = await attachCredentials(dependencies, container, image, worker, {
        renewal: true,
        starting: request.starting,
        refused: request.refused,
        signal: context.signal,
      });
      // It may have been revoked while a registry was asked.
      await bootOf(store, request);
      const { attempt, workerId } = request;
      const imageCredential = attached.credential;
      await containers.observe(container.id, { attempt, workerId }, { imageCredential });
      return {
        imageReference: referenceOf(image),
        manifestDigest: image.manifestDigest,
        imageCredentials: attached.sealed,
        requestId: attached.requestId,
        credentialsExpireAt: timestampFromDate(attached.expiresAt),
        credentialsAbsentReason: attached.absentReason,
        imageCredential: toWireImageCredential(imageCredential),
        provedAgoMs: BigInt(Math.round(attached.provedAgoMs ?? 0)),
      };
    },
  };
}

/** Gateways and schedulers call there: by TLS, and nowhere but at the root of a host. */
function assertAddress(address: string): void {
  const url = URL.parse(address);
  if (url?.protocol === "https:" && url.host !== "" && url.href === `${url.origin}/`) return;
  throw badRequest(
    "a worker's address is https://HOST:PORT",
    "Set worker.listen to this host's own address.",
  );
}

/** The container, when this attempt of it is the worker's and has not ended: others get no credentials. */
async function runningOn(
  containers: ContainerStore,
  { workerId, containerId, attempt }: RefreshImageCredentialsRequest,
): Promise<Container> {
  const container = await containers.find(containerId);
  const its = container?.workerId === workerId && container.attempt === attempt;
  if (container !== undefined && its && !isEnded(container.state)) return container;
  throw new SchedulerError(
    "not_its_container",
    `container ${containerId} does not run on worker ${workerId}`,
    {
      next: "The worker ends what is not its own by itself.",
    },
  );
}

async function notItsOwn(
  containers: ContainerStore,
  workerId: string,
  ids: readonly string[],
): Promise<string[]> {
  const remove: string[] = [];
  for (const id of ids) {
    const container = await containers.find(id);
    if (container === undefined || container.workerId !== workerId || isEnded(container.state))
      remove.push(id);
  }
  return remove;
}

/**
 * Writes what a worker saw. What comes late, for a container that has ended, changes nothing; a worker that goes on with one
 * is refused, so that it does not: it was stopped before it was heard of there.
 *
 * @throws ContainerError
 */
async function record(containers: ContainerStore, report: ReportContainerRequest): Promise<void> {
  const expected = { attempt: report.attempt, workerId: report.workerId };
  const seen = observationOf(report);
  const state = fromWireState(report.state);
  if (state === undefined) {
    await containers.observe(report.containerId, expected, seen);
    return;
  }
  try {
    await containers.transition(report.containerId, expected, state, {
      ...seen,
      at: fromWireTime(report.at),
      exitCode: report.exitCode,
      signal: report.signal || undefined,
      oomKilled: report.oomKilled,
      reason: report.reason || undefined,
    });
  } catch (error) {
    if (!(error instanceof ContainerError) || error.code !== "illegal_transition") throw error;
    const container = goesOn.has(state) ? await containers.find(report.containerId) : undefined;
    if (container !== undefined && isEnded(container.state)) throw error;
    log.warn("a report came too late", { container: report.containerId, state });
  }
}

const goesOn: ReadonlySet<ContainerState> = new Set(["preparing", "running"]);

function observationOf(report: ReportContainerRequest): Observation {
  const { phases, events, transfer, address, ports, restarts } = report;
  const at: Record<string, Date> = {};
  for (const phase of phases) at[phase.name] = fromWireTime(phase.at) ?? new Date();
  return {
    phases: at satisfies Phases,
    events: events.map((event) => ({
      at: fromWireTime(event.at),
      kind: event.kind,
      message: event.message,
      fields: event.fields,
    })),
    ...(transfer === undefined ? {} : { transfer: fromWireTransfer(transfer) }),
    ...(address === "" ? {} : { address }),
    ...(ports.length === 0 ? {} : { ports: ports.map(fromWirePort) }),
    ...(restarts === undefined ? {} : { restarts }),
  };
}
