import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { ContainerService, RunContainerRequest } from "../gen/oci_node/v1/container_service_pb.ts";
import { findImage } from "../image/service.ts";
import type { ImageStore } from "../image/store.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { logger } from "../std/log.ts";
import { checkOptions } from "./check-options.ts";
import type { Container } from "./container.ts";
import { ContainerError } from "./error.ts";
import { findContainer } from "./find.ts";
import { type HousekeepingDependencies, housekeepingMethods } from "./housekeeping-service.ts";
import { interactiveMethods } from "./interactive-service.ts";
import { fromWireOptions } from "./options-wire-service.ts";
import { type ContainerPolicies, checkAllowed } from "./policy.ts";
import { isEnded } from "./state.ts";
import { stopContainer, stopTimeoutOf } from "./stop.ts";
import { looksAt } from "./watch.ts";
import { fromWireNetwork, fromWireTransfer, toWireContainer } from "./wire-service.ts";
import { streamApart, type WorkerBoot } from "./worker-client.ts";

const log = logger("container");
const transferTimeoutMs = 2_000;

export interface ContainerServiceDependencies extends HousekeepingDependencies {
  readonly images: ImageStore;
  readonly policyOf: ContainerPolicies;
}

/** Answers ContainerService for the workspace of the caller. */
export function containerService(
  dependencies: ContainerServiceDependencies,
): ServiceImpl<typeof ContainerService> {
  const { containers } = dependencies;
  const find = (workspaceId: string, id: string) => findContainer(containers, workspaceId, id);
  return {
    ...interactiveMethods({ ...dependencies, find }),
    ...housekeepingMethods(dependencies),
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
        timeoutMs > 0 ? timeoutMs : stopTimeoutOf(found),
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
    async *streamLogs({ id, follow, since, tail }, context) {
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
      const request = {
        containerId: container.id,
        follow,
        ...(since && { since }),
        ...(tail !== undefined && { tail }),
      };
      const { signal } = context;
      const pieces = streamApart(
        dependencies.workers,
        worker,
        `the output of ${container.id}`,
        signal,
        (client) => client.streamLogs(request, { signal }),
      );
      for await (const { stream, at, data } of pieces)
        yield { stream, data, ...(at === undefined ? {} : { at }) };
    },
  };
}

async function queue(
  { images, containers, policyOf }: ContainerServiceDependencies,
  workspaceId: string,
  request: RunContainerRequest,
): Promise<Container> {
  const policy = await policyOf(workspaceId);
  const network = fromWireNetwork(request.network) ?? policy.defaultNetwork;
  const options = fromWireOptions(request.options);
  checkOptions(options, network, request.env);
  checkAllowed(policy, network, options);
  const image = await findImage(images, workspaceId, request.image);
  return await containers.create({
    workspaceId,
    imageId: image.id,
    reference: image.reference,
    command: request.command,
    env: request.env,
    network,
    eager: request.eager,
    options,
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
