import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ContainerNetwork } from "../container/options.ts";
import { fromWireOptions, toWireOptions } from "../container/options-wire-service.ts";
import { toWireNetwork } from "../container/wire-service.ts";
import {
  DeploymentSchema,
  EndpointSchema,
  EndpointSpecSchema,
  type Deployment as WireDeployment,
  type Endpoint as WireEndpoint,
  type EndpointSpec as WireSpec,
  DeploymentState as WireState,
} from "../gen/oci_node/v1/endpoint_service_pb.ts";
import type { Deployment, DeploymentState, EndpointSpec } from "./endpoint.ts";
import type { WantedSpec } from "./spec.ts";
import { activeOf, type EndpointView, isReady, kept } from "./view.ts";

const states: Readonly<Record<DeploymentState, WireState>> = {
  starting: WireState.STARTING,
  active: WireState.ACTIVE,
  draining: WireState.DRAINING,
  retired: WireState.RETIRED,
  failed: WireState.FAILED,
};

/** A specification as it was asked for, of an image and a network that were looked up. Nothing is checked: see `resolveSpec`. */
export function fromWireSpec(
  wire: WireSpec,
  found: { readonly imageId: string; readonly reference: string; readonly network: ContainerNetwork },
): WantedSpec {
  const { handler } = wire;
  return {
    ...found,
    ...(handler === undefined ? {} : { handler: { codeSha256: handler.codeSha256, name: handler.name } }),
    command: wire.command,
    port: wire.port,
    env: wire.env,
    cpuMillis: wire.cpuMillis,
    memoryBytes: Number(wire.memoryBytes),
    options: fromWireOptions(wire.options),
    public: wire.public,
    requestTimeoutMs: wire.requestTimeoutMs,
    concurrency: wire.concurrency,
    queueMax: wire.queueMax,
    containersMin: wire.containersMin,
    containersMax: wire.containersMax,
    keepWarmMs: wire.keepWarmMs,
    startupTimeoutMs: wire.startupTimeoutMs,
    bodyBytesMax: Number(wire.bodyBytesMax),
  };
}

/** A specification as clients see it; its environment is not shown, as a container's is not. */
function toWireSpec(spec: EndpointSpec): WireSpec {
  const { handler, env: _, imageId, reference: __, memoryBytes, bodyBytesMax, ...plain } = spec;
  return create(EndpointSpecSchema, {
    ...plain,
    image: imageId,
    command: [...spec.command],
    ...(handler === undefined ? {} : { handler: { ...handler, concurrency: spec.concurrency } }),
    memoryBytes: BigInt(memoryBytes),
    bodyBytesMax: BigInt(bodyBytesMax),
    network: toWireNetwork(spec.network),
    options: toWireOptions(spec.options),
  });
}

export function toWireDeployment({
  id,
  version,
  state,
  spec,
  reason,
  createdAt,
}: Deployment): WireDeployment {
  return create(DeploymentSchema, {
    id,
    version,
    state: states[state],
    imageId: spec.imageId,
    spec: toWireSpec(spec),
    reason: reason ?? "",
    createdAt: timestampFromDate(createdAt),
  });
}

/** Without a token a name alone is one of the workspace `default`: what is for everybody is called by a path that is. */
function pathOf({ name, workspaceName }: EndpointView, open: boolean): string {
  return `/endpoint/${name}${open && workspaceName !== "default" ? `.${workspaceName}` : ""}`;
}

/** @param gatewayUrl where this gateway is called; empty: not known */
export function toWireEndpoint(view: EndpointView, gatewayUrl: string): WireEndpoint {
  const active = activeOf(view);
  const [latest] = view.deployments;
  const living = view.deployments.flatMap((deployment) => deployment.living);
  const ready = living.filter(isReady).length;
  const sum = (what: "queued" | "inFlight") =>
    view.deployments.reduce((total, { demand }) => total + demand[what], 0);
  const path = pathOf(view, (active ?? latest)?.spec.public ?? false);
  // It takes no requests any more.
  const state = view.deletingAt === undefined ? {} : { state: "draining" as const };
  return create(EndpointSchema, {
    id: view.id,
    name: view.name,
    path,
    url: gatewayUrl === "" ? "" : `${gatewayUrl.replace(/\/$/, "")}${path}`,
    ...(active === undefined ? {} : { active: toWireDeployment({ ...active, ...state }) }),
    ...(latest === undefined || latest.id === active?.id ? {} : { latest: toWireDeployment(latest) }),
    containersReady: ready,
    containersStarting: view.deployments.flatMap(kept).length - ready,
    requestsInFlight: sum("inFlight"),
    requestsQueued: sum("queued"),
    containerIds: living.map(({ id }) => id),
    createdAt: timestampFromDate(view.createdAt),
    updatedAt: timestampFromDate(view.updatedAt),
  });
}
