import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type Container,
  ContainerState,
  type ImageTransfer,
} from "../gen/oci_node/v1/container_service_pb.ts";
import { CredentialRights, HealthState, type SecretHealth } from "../gen/oci_node/v1/health_service_pb.ts";
import { CredentialDelivery, type ImageCredential } from "../gen/oci_node/v1/image_credential_pb.ts";
import type { Image } from "../gen/oci_node/v1/image_service_pb.ts";
import type { Worker } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import type { Secret } from "../gen/oci_node/v1/secret_service_pb.ts";

import { howItRuns } from "./container-shape.ts";

/** `running`, `exited`, … */
export function stateName(state: ContainerState): string {
  return ContainerState[state].toLowerCase();
}

export function hasEnded(container: Container): boolean {
  return (
    container.state === ContainerState.EXITED ||
    container.state === ContainerState.FAILED ||
    container.state === ContainerState.STOPPED
  );
}

export function dateOf(timestamp: Timestamp | undefined): Date | undefined {
  return timestamp === undefined ? undefined : timestampDate(timestamp);
}

export function time(timestamp: Timestamp | undefined): string | null {
  return dateOf(timestamp)?.toISOString() ?? null;
}

/** What `--json` shows of an image. */
export function imageShape(image: Image) {
  return {
    id: image.id,
    reference: image.reference,
    registry: image.registry,
    repository: image.repository,
    manifestDigest: image.manifestDigest,
    platform: image.platform,
    secretName: image.credentialSecretName || null,
    secretId: image.credentialSecretId || null,
    sizeBytes: Number(image.sizeBytes),
    inodes: Number(image.inodes),
    layers: image.layers,
    indexSha256: image.indexSha256,
    createdAt: time(image.createdAt),
  };
}

export function secretShape(secret: Secret) {
  return {
    id: secret.id,
    name: secret.name,
    registry: secret.registry,
    type: secret.type,
    principal: secret.principal,
    version: secret.version,
    repository: secret.repository || null,
    declaredExpiry: time(secret.declaredExpiry),
    images: secret.imageIds,
    ...(secret.containerIds.length > 0 ? { containers: secret.containerIds } : {}),
    health: secret.health === undefined ? null : stateShape(secret.health),
    createdAt: time(secret.createdAt),
    updatedAt: time(secret.updatedAt),
  };
}

/** `ok`, `expiring`, `failing`, `unknown`. */
export function stateOfHealth(state: HealthState): string {
  return state === HealthState.UNSPECIFIED ? "unknown" : HealthState[state].toLowerCase();
}

/** What `--json` shows of how a secret fares. */
export function healthShape(health: SecretHealth) {
  return {
    name: health.secretName,
    id: health.secretId,
    registry: health.registry,
    version: health.version,
    ...stateShape(health),
    images: health.imageIds,
    containers: health.containerIds,
  };
}

function stateShape(health: SecretHealth) {
  return {
    state: stateOfHealth(health.state),
    code: health.code || null,
    reason: health.reason || null,
    next: health.next || null,
    since: time(health.since),
    checkedAt: time(health.checkedAt),
    lastOkAt: time(health.lastOkAt),
    nextCheckAt: time(health.nextCheckAt),
    expiresAt: time(health.expiresAt),
    rights: CredentialRights[health.rights].toLowerCase(),
  };
}

function transferShape(transfer: ImageTransfer | undefined) {
  if (transfer === undefined) return null;
  return {
    fetchedBytes: Number(transfer.fetchedBytes),
    requests: Number(transfer.requests),
    compressedBytes: Number(transfer.compressedBytes),
    spansPresent: Number(transfer.spansPresent),
    spansTotal: Number(transfer.spansTotal),
    complete: transfer.complete,
  };
}

/** How the image's credential reached the worker. */
function imageCredentialShape(credential: ImageCredential | undefined, container: Container) {
  if (credential === undefined) return null;
  return {
    delivery: CredentialDelivery[credential.delivery].toLowerCase(),
    secretName: credential.secretName || null,
    secretId: credential.secretId || null,
    secretVersion: credential.secretVersion || null,
    identity: credential.identity || null,
    type: credential.type || null,
    scope: credential.scope || null,
    givenAt: time(credential.givenAt),
    validUntil: time(credential.validUntil),
    renewAt: time(credential.renewAt),
    sealedReason: credential.sealedReason || null,
    note: idleNote(credential, container),
  };
}

/** What a time that is past means: as a rule no trouble, as a worker asks for nothing that it has no use for. */
function idleNote({ validUntil }: ImageCredential, container: Container, now = Date.now()): string | null {
  const end = dateOf(validUntil)?.getTime();
  if (end === undefined || end > now) return null;
  if (hasEnded(container)) return "over, as the container is";
  if (container.transfer?.complete !== true)
    return "over, and there is no next one yet: reads of what is not here fail; the events say why";
  return "not renewed, as all of the image is on the worker; the next one is asked for when something has to be fetched";
}

export function containerShape(container: Container) {
  return {
    id: container.id,
    name: container.name || null,
    imageId: container.imageId,
    reference: container.reference,
    state: stateName(container.state),
    attempt: container.attempt,
    worker: container.workerId || null,
    command: container.command,
    ...howItRuns(container),
    exitCode: container.exitCode ?? null,
    signal: container.signal || null,
    oomKilled: container.oomKilled,
    reason: container.reason || null,
    createdAt: time(container.createdAt),
    startedAt: time(container.startedAt),
    finishedAt: time(container.finishedAt),
    phases: container.phases.map((phase) => ({ name: phase.name, at: time(phase.at) })),
    events: container.events.map((event) => ({
      at: time(event.at),
      kind: event.kind,
      message: event.message,
      fields: event.fields,
    })),
    transfer: transferShape(container.transfer),
    imageCredential: imageCredentialShape(container.imageCredential, container),
  };
}

export function workerShape(worker: Worker) {
  return {
    id: worker.id,
    name: worker.name,
    address: worker.address,
    state: worker.state,
    platform: worker.platform,
    version: worker.version,
    cpuMillis: worker.cpuMillis,
    memoryBytes: Number(worker.memoryBytes),
    cpuMillisUsed: worker.cpuMillisUsed,
    memoryBytesUsed: Number(worker.memoryBytesUsed),
    containers: worker.containers,
    lastHeartbeatAt: time(worker.lastHeartbeatAt),
    certificateExpiresAt: time(worker.certificateExpiresAt),
  };
}
