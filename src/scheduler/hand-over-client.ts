import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { commandOf } from "../container/command.ts";
import type { Container } from "../container/container.ts";
import { toWireImageCredential } from "../container/credential-wire-service.ts";
import { toWireOptions } from "../container/options-wire-service.ts";
import { toWireNetwork } from "../container/wire-service.ts";
import type { WorkerClients } from "../container/worker-client.ts";
import { type Image, referenceOf } from "../image/image.ts";
import type { AttachedCredentials } from "./attach.ts";

const handOverTimeoutMs = 10_000;

/** What is handed over beside the container itself. */
export interface AttachedAll extends AttachedCredentials {
  /** Of the secrets that the container is given; empty: none. */
  readonly sealedSecrets: string;
}

/** A worker did not take a container, or its answer was lost. */
export interface HandOverFailure {
  readonly message: string;
}

/** Says to a worker which container is coming, while its credentials are asked for. Only a hint: its failure says nothing. */
export async function announce(
  client: ReturnType<WorkerClients["to"]>,
  container: Container,
  image: Image,
): Promise<void> {
  const { id: containerId, attempt, workspaceId, eager } = container;
  const { manifestDigest, indexSha256 = "" } = image;
  const request = { containerId, attempt, workspaceId, manifestDigest, indexSha256, eager };
  await client
    .prepareContainer({ ...request, command: commandOf(container) }, { timeoutMs: handOverTimeoutMs })
    .catch(() => undefined);
}

/** Says that a container which was announced is not coming. Only a hint as well. */
export async function retract(
  client: ReturnType<WorkerClients["to"]>,
  { id: containerId, attempt }: Container,
): Promise<void> {
  await client
    .prepareContainer({ containerId, attempt, withdrawn: true }, { timeoutMs: handOverTimeoutMs })
    .catch(() => undefined);
}

/** Gives a container to a worker. `undefined`: it has it. */
export async function handOver(
  client: ReturnType<WorkerClients["to"]>,
  container: Container,
  image: Image,
  attached: AttachedAll,
  workspaceName: string,
): Promise<HandOverFailure | undefined> {
  const request = {
    containerId: container.id,
    attempt: container.attempt,
    workspaceId: container.workspaceId,
    workspaceName,
    imageId: image.id,
    imageReference: referenceOf(image),
    manifestDigest: image.manifestDigest,
    indexSha256: image.indexSha256 ?? "",
    imageCredentials: attached.sealed,
    requestId: attached.requestId,
    credentialsExpireAt: timestampFromDate(attached.expiresAt),
    credentialsAbsentReason: attached.absentReason,
    imageCredential: toWireImageCredential(attached.credential),
    accessProved: attached.accessProved ?? false,
    provedAgoMs: BigInt(Math.round(attached.provedAgoMs ?? 0)),
    grantLifeMs: BigInt(attached.grantLifeMs),
    command: commandOf(container),
    env: { ...container.env },
    cpuMillis: container.cpuMillis,
    memoryBytes: BigInt(container.memoryBytes),
    network: toWireNetwork(container.network),
    eager: container.eager,
    options: toWireOptions(container.options),
    sealedSecrets: attached.sealedSecrets,
    ...(container.handler === undefined ? {} : { handler: container.handler }),
    port: container.serving?.port ?? 0,
    startupTimeoutMs: container.serving?.startupTimeoutMs ?? 0,
    concurrency: container.serving?.concurrency ?? 0,
  };
  try {
    await client.startContainer({ request }, { timeoutMs: handOverTimeoutMs });
    return undefined;
  } catch (error) {
    return { message: ConnectError.from(error).rawMessage };
  }
}
