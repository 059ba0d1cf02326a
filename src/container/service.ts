import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type ContainerService,
  Network,
  type RunContainerRequest,
} from "../gen/oci_node/v1/container_service_pb.ts";
import { findImage } from "../image/service.ts";
import type { ImageStore } from "../image/store.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { logger } from "../std/log.ts";
import { printable } from "../std/printable.ts";
import type { Container } from "./container.ts";
import { ContainerError } from "./error.ts";
import { housekeepingMethods } from "./housekeeping-service.ts";
import { interactiveMethods } from "./interactive-service.ts";
import { fromWireOptions } from "./options-wire-service.ts";
import { isEnded } from "./state.ts";
import { type StopDependencies, stopContainer, stopTimeoutMs } from "./stop.ts";
import type { ContainerStore } from "./store.ts";
import { looksAt } from "./watch.ts";
import { fromWireNetwork, fromWireTransfer, toWireContainer } from "./wire-service.ts";
import { type WorkerBoot, type WorkerClients, workerFailure } from "./worker-client.ts";

const log = logger("container");
const transferTimeoutMs = 2_000;

export interface ContainerServiceDependencies extends StopDependencies {
  readonly containers: ContainerStore;
  readonly workers: WorkerClients;
  readonly images: ImageStore;
  /** Whether the operator allows a workspace's containers the host's network. */
  readonly hostNetworkAllowed: (workspaceId: string) => Promise<boolean>;
}

/** Answers ContainerService for the workspace of the caller. */
export function containerService(
  dependencies: ContainerServiceDependencies,
): ServiceImpl<typeof ContainerService> {
  const { containers } = dependencies;
  const find = (workspaceId: string, id: string) => findContainer(containers, workspaceId, id);
  return {
    ...interactiveMethods(),
    ...housekeepingMethods(),
    async runContainer(request, context) {
      const container = await queue(dependencies, workspaceOf(context), request);
      log.info("container queued", { container: container.id, image: container.imageId });
      return { container: toWireContainer(container) };
    },
    async getContainer({ id }, context) {
      const found = await find(workspaceOf(context), id);
      const shown = await withLiveTransfer(dependencies, found);
      return { container: toWireContainer(shown, await containers.events(found.id)) };
    },
    async listContainers({ all }, context) {
      const rows = await containers.list(workspaceOf(context), { all });
      return { containers: rows.map((row) => toWireContainer(row)) };
    },
    async stopContainer({ id, timeoutMs }, context) {
      const found = await find(workspaceOf(context), id);
      const stopped = await stopContainer(
        dependencies,
        found,
        timeoutMs > 0 ? timeoutMs : stopTimeoutMs,
        context.signal,
      );
      return { container: toWireContainer(stopped) };
    },
    async *watchContainer({ id }, context) {
      const found = await find(workspaceOf(context), id);
      for await (const { container, changed } of looksAt(dependencies, found, context.signal)) {
        if (changed) yield { container: toWireContainer(container) };
        if (isEnded(container.state)) return;
      }
    },
    async *streamLogs({ id, follow }, context) {
      const found = await find(workspaceOf(context), id);
      const container = follow ? await whenStarted(dependencies, found, context.signal) : found;
      const worker = await workerOf(dependencies, container);
      if (worker === undefined && container.startedAt !== undefined) {
        throw new ContainerError(
          "not_found",
          `the output of ${container.id} was on worker ${container.workerId ?? "-"}, which is gone`,
          { next: `See what is known of it: oci-node inspect ${container.id}` },
        );
      }
      if (worker === undefined || container.startedAt === undefined) {
        throw new ContainerError(
          "not_found",
          `container ${container.id} has no output: it is ${container.state} and did not run`,
          { next: `See more: oci-node inspect ${container.id}` },
        );
      }
      try {
        const pieces = dependencies.workers
          .to(worker)
          .streamLogs({ containerId: container.id, follow }, { signal: context.signal });
        for await (const { stream, at, data } of pieces)
          yield { stream, data, ...(at === undefined ? {} : { at }) };
      } catch (error) {
        throw workerFailure(error, worker, `the output of ${container.id}`, context.signal);
      }
    },
  };
}

/** A container by its id, or by the beginning of one where that is clear. */
async function findContainer(
  containers: ContainerStore,
  workspaceId: string,
  text: string,
): Promise<Container> {
  const exact = await containers.find(text);
  if (exact?.workspaceId === workspaceId) return exact;
  const alike =
    text.length < 3
      ? []
      : (await containers.list(workspaceId, { all: true })).filter(({ id }) => id.startsWith(text));
  const [only] = alike;
  if (only === undefined || alike.length > 1) {
    const many = alike.length > 1;
    throw new ContainerError(
      "not_found",
      many ? `${text} could be several containers` : `no container ${printable(text)}`,
      {
        next: many ? "Give more of its id." : "List them with `oci-node ps --all`.",
      },
    );
  }
  return only;
}

async function queue(
  { images, containers, hostNetworkAllowed }: ContainerServiceDependencies,
  workspaceId: string,
  request: RunContainerRequest,
): Promise<Container> {
  if (request.network === Network.HOST && !(await hostNetworkAllowed(workspaceId))) {
    throw new ConnectError(
      "the operator does not allow this workspace the host's network: set host_network = true for it in the configuration",
      Code.PermissionDenied,
    );
  }
  const image = await findImage(images, workspaceId, request.image);
  return await containers.create({
    workspaceId,
    imageId: image.id,
    reference: image.reference,
    command: request.command,
    env: request.env,
    network: fromWireNetwork(request.network) ?? "none",
    eager: request.eager,
    options: fromWireOptions(request.options),
    ...(request.name === "" ? {} : { name: request.name }),
    cpuMillis: request.cpuMillis,
    memoryBytes: Number(request.memoryBytes),
  });
}

async function workerOf(
  { findWorker }: ContainerServiceDependencies,
  { workerId }: Container,
): Promise<WorkerBoot | undefined> {
  return workerId === undefined ? undefined : await findWorker(workerId);
}

/** What its worker has fetched by now; the last that was reported when the worker does not answer. */
async function withLiveTransfer(
  dependencies: ContainerServiceDependencies,
  container: Container,
): Promise<Container> {
  const worker = isEnded(container.state) ? undefined : await workerOf(dependencies, container);
  if (worker === undefined) return container;
  try {
    const { transfer } = await dependencies.workers
      .to(worker)
      .getTransfer({ containerId: container.id }, { timeoutMs: transferTimeoutMs });
    return transfer === undefined ? container : { ...container, transfer: fromWireTransfer(transfer) };
  } catch {
    return container;
  }
}

/** The container once it has run, or once it has ended without. */
async function whenStarted(
  dependencies: ContainerServiceDependencies,
  container: Container,
  signal: AbortSignal,
): Promise<Container> {
  for await (const { container: current } of looksAt(dependencies, container, signal)) {
    if (current.startedAt !== undefined || isEnded(current.state)) return current;
  }
  throw new ConnectError("the call was cancelled", Code.Canceled);
}
