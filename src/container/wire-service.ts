import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  ContainerSchema,
  ImageTransferSchema,
  Network,
  type Container as WireContainer,
  ContainerState as WireState,
  type ImageTransfer as WireTransfer,
} from "../gen/oci_node/v1/container_service_pb.ts";
import type { Container, ContainerEvent, ContainerNetwork, ImageTransfer } from "./container.ts";
import { toWireImageCredential } from "./credential-wire-service.ts";
import { toWireOptions, toWirePort } from "./options-wire-service.ts";
import type { ContainerState } from "./state.ts";

const wireStates: Readonly<Record<ContainerState, WireState>> = {
  pending: WireState.PENDING,
  scheduled: WireState.SCHEDULED,
  preparing: WireState.PREPARING,
  running: WireState.RUNNING,
  stopping: WireState.STOPPING,
  exited: WireState.EXITED,
  failed: WireState.FAILED,
  stopped: WireState.STOPPED,
};

const states = new Map(Object.entries(wireStates).map(([state, wire]) => [wire, state as ContainerState]));

export function toWireState(state: ContainerState): WireState {
  return wireStates[state];
}

/** `undefined` for UNSPECIFIED and for states of a newer version. */
export function fromWireState(state: WireState): ContainerState | undefined {
  return states.get(state);
}

const wireNetworks: Readonly<Record<ContainerNetwork, Network>> = {
  none: Network.NONE,
  host: Network.HOST,
  private: Network.PRIVATE,
};

/** `undefined` for UNSPECIFIED: the operator's default. */
export function fromWireNetwork(network: Network): ContainerNetwork | undefined {
  if (network === Network.PRIVATE) return "private";
  if (network === Network.HOST) return "host";
  return network === Network.NONE ? "none" : undefined;
}

export function toWireNetwork(network: ContainerNetwork): Network {
  return wireNetworks[network];
}

export function fromWireTime(timestamp: Timestamp | undefined): Date | undefined {
  return timestamp === undefined ? undefined : timestampDate(timestamp);
}

export function toWireTransfer(transfer: ImageTransfer): WireTransfer {
  return create(ImageTransferSchema, {
    fetchedBytes: BigInt(transfer.fetchedBytes),
    requests: BigInt(transfer.requests),
    compressedBytes: BigInt(transfer.compressedBytes),
    spansPresent: BigInt(transfer.spansPresent),
    spansTotal: BigInt(transfer.spansTotal),
    complete: transfer.complete,
  });
}

export function fromWireTransfer(transfer: WireTransfer): ImageTransfer {
  return {
    fetchedBytes: Number(transfer.fetchedBytes),
    requests: Number(transfer.requests),
    compressedBytes: Number(transfer.compressedBytes),
    spansPresent: Number(transfer.spansPresent),
    spansTotal: Number(transfer.spansTotal),
    complete: transfer.complete,
  };
}

export function toWireEvent({ at, kind, message, fields }: ContainerEvent) {
  return { at: timestampFromDate(at), kind, message, fields: { ...fields } };
}

/** A container as clients see it; its environment is not shown. */
export function toWireContainer(container: Container, events: readonly ContainerEvent[] = []): WireContainer {
  return create(ContainerSchema, {
    id: container.id,
    imageId: container.imageId,
    reference: container.reference,
    state: toWireState(container.state),
    attempt: container.attempt,
    workerId: container.workerId ?? "",
    command: [...container.command],
    ...(container.exitCode === undefined ? {} : { exitCode: container.exitCode }),
    signal: container.signal ?? "",
    oomKilled: container.oomKilled,
    reason: container.reason ?? "",
    createdAt: timestampFromDate(container.createdAt),
    ...(container.startedAt === undefined ? {} : { startedAt: timestampFromDate(container.startedAt) }),
    ...(container.finishedAt === undefined ? {} : { finishedAt: timestampFromDate(container.finishedAt) }),
    phases: Object.entries(container.phases)
      .sort(([, a], [, b]) => a.getTime() - b.getTime())
      .map(([name, at]) => ({ name, at: timestampFromDate(at) })),
    events: events.map(toWireEvent),
    ...(container.transfer === undefined ? {} : { transfer: toWireTransfer(container.transfer) }),
    ...(container.imageCredential === undefined
      ? {}
      : { imageCredential: toWireImageCredential(container.imageCredential) }),
    name: container.name ?? "",
    options: toWireOptions(container.options),
    network: toWireNetwork(container.network),
    address: container.address ?? "",
    ports: container.ports.map(toWirePort),
    restarts: container.restarts,
    deploymentId: container.deploymentId ?? "",
    ...(container.readyAt === undefined ? {} : { readyAt: timestampFromDate(container.readyAt) }),
    cpuMillis: container.cpuMillis,
    memoryBytes: BigInt(container.memoryBytes),
  });
}
