import { Network } from "../gen/oci_node/v1/container_service_pb.ts";
import { type Deployment, DeploymentState, type Endpoint } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { time } from "./shape.ts";

/** What `--json` shows of an endpoint. */
export function endpointShape(endpoint: Endpoint) {
  return {
    id: endpoint.id,
    name: endpoint.name,
    url: endpoint.url || null,
    path: endpoint.path,
    active: endpoint.active === undefined ? null : deploymentShape(endpoint.active),
    latest: endpoint.latest === undefined ? null : deploymentShape(endpoint.latest),
    containersReady: endpoint.containersReady,
    containersStarting: endpoint.containersStarting,
    requestsInFlight: endpoint.requestsInFlight,
    requestsQueued: endpoint.requestsQueued,
    containers: endpoint.containerIds,
    createdAt: time(endpoint.createdAt),
    updatedAt: time(endpoint.updatedAt),
  };
}

/** `starting`, `active`, … */
export function deploymentStateName(state: DeploymentState): string {
  return DeploymentState[state].toLowerCase();
}

function deploymentShape(deployment: Deployment) {
  const { spec } = deployment;
  return {
    id: deployment.id,
    version: deployment.version,
    state: deploymentStateName(deployment.state),
    imageId: deployment.imageId,
    reason: deployment.reason || null,
    createdAt: time(deployment.createdAt),
    ...(spec === undefined
      ? {}
      : {
          handler: spec.handler?.name ?? null,
          codeSha256: spec.handler?.codeSha256 ?? null,
          command: spec.command,
          port: spec.port,
          public: spec.public,
          cpuMillis: spec.cpuMillis || null,
          memoryBytes: Number(spec.memoryBytes) || null,
          network: Network[spec.network].toLowerCase(),
          requestTimeoutMs: spec.requestTimeoutMs,
          concurrency: spec.concurrency,
          queueMax: spec.queueMax,
          containersMin: spec.containersMin,
          containersMax: spec.containersMax,
          keepWarmMs: spec.keepWarmMs,
          startupTimeoutMs: spec.startupTimeoutMs,
          bodyBytesMax: Number(spec.bodyBytesMax) || null,
        }),
  };
}
