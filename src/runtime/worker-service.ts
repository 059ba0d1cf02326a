import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { fromWireImageCredential } from "../container/credential-wire-service.ts";
import { fromWireOptions } from "../container/options-wire-service.ts";
import { fromWireNetwork, fromWireTime, toWireTransfer } from "../container/wire-service.ts";
import { LogStream } from "../gen/oci_node/v1/container_service_pb.ts";
import type { ContainerRequest, WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { RuntimeError } from "./error.ts";
import type { WorkerContainerRequest } from "./held-container.ts";
import { interactiveMethods } from "./program/interactive-service.ts";
import type { Worker } from "./worker.ts";

/** Answers WorkerService: the scheduler's hand-over, stops, output. */
export function workerService(
  worker: Worker,
  boot: { readonly workerId: string; readonly bootNonce: string },
): ServiceImpl<typeof WorkerService> {
  return {
    async prepareContainer(request) {
      const { containerId, attempt, workspaceId, manifestDigest, indexSha256, command, eager } = request;
      if (request.withdrawn) worker.dropPrepared(request);
      else worker.prepare({ containerId, attempt, workspaceId, manifestDigest, indexSha256, command, eager });
      return {};
    },
    async startContainer({ request }) {
      if (request === undefined) throw new RuntimeError("bad_config", "the hand-over holds no request");
      await worker.start(fromWireRequest(request, boot));
      return {};
    },
    async stopContainer({ containerId, timeoutMs }) {
      await worker.find(containerId)?.stop(timeoutMs);
      return {};
    },
    async *streamLogs({ containerId, follow, since, tail }, context) {
      const part = {
        ...(since === undefined ? {} : { since: timestampDate(since) }),
        ...(tail === undefined ? {} : { tail: Math.max(0, tail) }),
      };
      for await (const { stream, time, data } of worker.logs(containerId, follow, part, context.signal)) {
        yield {
          stream: stream === "stderr" ? LogStream.STDERR : LogStream.STDOUT,
          at: timestampFromDate(time),
          data,
        };
      }
    },
    ...interactiveMethods(worker),
    async removeContainer({ containerId }) {
      await worker.removeOutput(containerId);
      return {};
    },
    async drainContainer({ containerId, timeoutMs }) {
      await worker.forwarder.drain(containerId, timeoutMs);
      return {};
    },
    async removeVolume({ workspaceId, name }) {
      await worker.removeVolume({ workspaceId, name });
      return {};
    },
    async getTransfer({ containerId }) {
      const transfer = worker.find(containerId)?.transfer();
      return transfer === undefined ? {} : { transfer: toWireTransfer(transfer) };
    },
    async getLazyStatus({ workspaceId, manifestDigest, indexSha256 }) {
      const { layers, mounts } = await worker.lazyStatus(workspaceId, manifestDigest, indexSha256);
      return {
        layers: layers.map(({ digest, sizeBytes, spansTotal, look }) => ({
          digest,
          sizeBytes: BigInt(sizeBytes),
          spansTotal,
          spansCached: look?.spansCached ?? 0,
          cachedBytes: BigInt(look?.cachedBytes ?? 0),
          elsewhere: look === undefined,
        })),
        mounts: mounts.map(({ transport, servedByProcess, users, fetchedBytes, requests }) => ({
          transport,
          served: servedByProcess,
          users,
          fetchedBytes: BigInt(fetchedBytes),
          requests: BigInt(requests),
        })),
      };
    },
  };
}

function fromWireRequest(
  request: ContainerRequest,
  { workerId, bootNonce }: { readonly workerId: string; readonly bootNonce: string },
): WorkerContainerRequest {
  const { containerId, requestId } = request;
  const expiresAt = fromWireTime(request.credentialsExpireAt) ?? new Date(0);
  return {
    containerId,
    attempt: request.attempt,
    workspaceId: request.workspaceId,
    imageReference: request.imageReference,
    manifestDigest: request.manifestDigest,
    indexSha256: request.indexSha256,
    sealedCredentials: request.imageCredentials,
    sealContext: { requestId, containerId, workerId, bootNonce, expiresAt },
    absentReason: request.credentialsAbsentReason,
    credential: fromWireImageCredential(request.imageCredential),
    accessProved: request.accessProved,
    provedAgoMs: Number(request.provedAgoMs),
    grantLifeMs: Number(request.grantLifeMs),
    command: request.command,
    env: request.env,
    cpuMillis: request.cpuMillis,
    memoryBytes: Number(request.memoryBytes),
    network: fromWireNetwork(request.network) ?? "none",
    eager: request.eager,
    options: fromWireOptions(request.options),
    sealedSecrets: request.sealedSecrets,
    handler: request.handler,
    serving:
      request.port === 0
        ? undefined
        : {
            port: request.port,
            startupTimeoutMs: request.startupTimeoutMs,
            concurrency: request.concurrency,
          },
    workspaceName: request.workspaceName,
  };
}
