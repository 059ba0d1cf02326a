import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { AuditService } from "../gen/oci_node/v1/audit_service_pb.ts";
import { ContainerService, Network } from "../gen/oci_node/v1/container_service_pb.ts";
import { CredentialService } from "../gen/oci_node/v1/credential_service_pb.ts";
import { EndpointService } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { HealthService } from "../gen/oci_node/v1/health_service_pb.ts";
import { ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { KeyService } from "../gen/oci_node/v1/key_service_pb.ts";
import { ClusterService, JoinService, SchedulerService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { Role, TokenService } from "../gen/oci_node/v1/token_service_pb.ts";
import { WorkspaceService } from "../gen/oci_node/v1/workspace_service_pb.ts";

export type TargetKind =
  | "secret"
  | "image"
  | "container"
  | "token"
  | "workspace"
  | "worker"
  | "key"
  | "webhook"
  | "endpoint"
  | "volume"
  | "code";

/** What a call was about, as far as it can be told. */
export interface CallTarget {
  readonly id?: string | undefined;
  readonly name?: string | undefined;
}

export interface CallWorkspace {
  readonly id?: string | undefined;
  readonly name?: string | undefined;
}

type Fields = Readonly<Record<string, string | number | boolean | undefined>>;

/** How a method that changes something, or hands something out, is written down. */
export interface AuditRow {
  readonly method: DescMethod;
  /** The target's kind and a verb: `secret.create`. */
  readonly action: string;
  readonly kind: TargetKind;
  /** Nothing is done, or handed out, that cannot be written down. Else that goes to the log, and the call goes on. */
  readonly strict: boolean;
  /** Of calls that are repeated by themselves: one event in so many milliseconds for the same target and outcome. */
  readonly everyMs: number;
  /** `response`: absent when there was none; of a stream the last message. */
  readonly target: (request: never, response: never) => CallTarget;
  /** Small facts, never values. */
  readonly fields: (request: never, response: never) => Fields;
  /** Whose it is, where it is not the caller's. */
  readonly workspace: ((request: never, response: never) => CallWorkspace) | undefined;
}

type Typed<I extends DescMessage, O extends DescMessage> = DescMethod & {
  readonly input: I;
  readonly output: O;
};
type Read<I extends DescMessage, O extends DescMessage, T> = (
  request: MessageShape<I>,
  response: MessageShape<O> | undefined,
) => T;

function row<I extends DescMessage, O extends DescMessage>(
  method: Typed<I, O>,
  action: string,
  how: {
    readonly target: Read<I, O, CallTarget>;
    readonly fields?: Read<I, O, Fields>;
    readonly workspace?: Read<I, O, CallWorkspace>;
    readonly strict?: boolean;
    readonly everyMs?: number;
  },
): AuditRow {
  const { target, fields = () => ({}), workspace, strict = true, everyMs = 0 } = how;
  return {
    method,
    action,
    kind: kindOf(action),
    strict,
    everyMs,
    target,
    fields,
    workspace,
  } as unknown as AuditRow;
}

const { method: image } = ImageService;
const { method: secret } = SecretService;
const { method: container } = ContainerService;
const { method: endpoint } = EndpointService;
const { method: workspace } = WorkspaceService;
const { method: token } = TokenService;
const { method: key } = KeyService;
const { method: health } = HealthService;

const dayMs = 24 * 3_600_000;
const imageNamed = (text: string): CallTarget =>
  /^img-[0-9a-f]{24}$/.test(text) ? { id: text } : { name: text };
const day = (at: Timestamp | undefined) => (at === undefined ? undefined : timestampDate(at).toISOString());

/** Every method that changes something, or hands a credential out. */
export const audited: readonly AuditRow[] = [
  row(image.buildImage, "image.build", {
    target: (request, response) => ({
      id: built(response)?.id,
      name: built(response)?.reference ?? request.reference,
    }),
    fields: (request, response) => ({
      secret: built(response)?.credentialSecretName || request.secretName || undefined,
      // How many, not which.
      credentials: Object.keys(request.baseImageCreds).length || undefined,
      digest: built(response)?.manifestDigest,
    }),
  }),
  row(image.deleteImage, "image.delete", { target: (request) => imageNamed(request.image) }),
  row(secret.createSecret, "secret.create", {
    target: (request, response) => ({
      id: response?.secret?.id,
      name: response?.secret?.name ?? request.name,
    }),
    fields: (request, response) => ({
      registry: response?.secret?.registry ?? request.registry,
      type: response?.secret?.type,
      version: response?.secret?.version,
      unchecked: request.unchecked || undefined,
    }),
  }),
  row(secret.updateSecret, "secret.update", {
    target: (request, response) => ({ id: response?.secret?.id, name: request.name }),
    fields: (request, response) => ({
      version: response?.secret?.version,
      changed: response?.changed,
      unchecked: request.unchecked || undefined,
    }),
  }),
  row(secret.deleteSecret, "secret.delete", {
    target: ({ name }) => ({ name }),
    fields: ({ force }) => ({ force: force || undefined }),
  }),
  row(CredentialService.method.getRegistryCredential, "credential.get", {
    target: (request, response) => ({ name: response?.secretName || request.secretName || undefined }),
    fields: (request, response) => ({
      image: request.image,
      registry: response?.registry,
      scope: response?.scope,
      validUntil: day(response?.validUntil),
    }),
  }),
  row(container.runContainer, "container.run", {
    strict: false,
    target: (request, response) => ({ id: response?.container?.id, name: request.name || undefined }),
    fields: (request, response) => ({
      image: response?.container?.imageId ?? request.image,
      reference: response?.container?.reference,
      network: request.network === Network.HOST ? "host" : undefined,
      hostPaths: hostPaths(request.options?.volumes ?? []),
    }),
  }),
  row(container.stopContainer, "container.stop", {
    strict: false,
    target: (request, response) => ({ id: response?.container?.id ?? request.id }),
  }),
  row(workspace.createWorkspace, "workspace.create", {
    target: (request, response) => ({ id: response?.workspace?.id, name: request.name }),
    workspace: (request, response) => ({ id: response?.workspace?.id, name: request.name }),
  }),
  row(workspace.deleteWorkspace, "workspace.delete", {
    target: (request, response) => ({ id: response?.workspace?.id, name: request.name }),
    workspace: (request, response) => ({ id: response?.workspace?.id, name: request.name }),
    fields: ({ force }, response) => ({
      force: force || undefined,
      secrets: response?.workspace?.secrets,
      images: response?.workspace?.images,
      tokens: response?.workspace?.tokens,
    }),
  }),
  row(token.createToken, "token.create", {
    target: (request, response) => ({ id: response?.token?.id, name: request.name }),
    workspace: (request, response) => ({
      name: response?.token?.workspace || request.workspace || undefined,
    }),
    fields: (request) => ({ role: Role[request.role]?.toLowerCase(), expires: day(request.expiresAt) }),
  }),
  row(token.revokeToken, "token.revoke", {
    target: (request, response) => ({ id: request.id, name: response?.token?.name }),
    workspace: (_, response) => ({ name: response?.token?.workspace || undefined }),
    fields: (_, response) => ({
      role: response?.token === undefined ? undefined : Role[response.token.role]?.toLowerCase(),
      joinedWorkers: response?.joinedWorkers.join(", ") || undefined,
    }),
  }),
  row(key.rotateKey, "key.rotate", {
    target: (request, response) => ({ id: response?.to || request.to || undefined }),
    fields: (_, response) => ({ rewrapped: response?.rewrapped, left: response?.left, done: response?.done }),
  }),
  row(key.retireKey, "key.retire", { target: ({ id }) => ({ id }) }),
  row(health.checkSecret, "secret.check", {
    strict: false,
    target: ({ secretName }) => ({ name: secretName }),
  }),
  row(health.createWebhook, "webhook.create", {
    // Of the address its host alone: addresses carry tokens.
    target: (_, response) => ({ id: response?.webhook?.id, name: response?.webhook?.host }),
  }),
  row(health.deleteWebhook, "webhook.delete", { target: ({ id }) => ({ id }) }),
  row(health.testWebhook, "webhook.test", {
    strict: false,
    target: ({ id }) => ({ id }),
    fields: (_, response) => ({ status: response?.status }),
  }),
  row(ClusterService.method.revokeWorker, "worker.revoke", {
    target: (request, response) => ({
      id: response?.worker?.id,
      name: response?.worker?.name ?? request.worker,
    }),
    fields: (_, response) => ({ containers: response?.containerIds.length }),
  }),
  row(JoinService.method.joinCluster, "worker.join", {
    target: (request, response) => ({ id: response?.workerId, name: request.name }),
  }),
  row(JoinService.method.renewCertificate, "worker.renew", {
    strict: false,
    everyMs: dayMs,
    target: () => ({}),
  }),
  row(container.killContainer, "container.kill", {
    target: (request, response) => ({ id: response?.container?.id ?? request.id }),
    fields: ({ signal }) => ({ signal: signal || undefined }),
  }),
  row(container.removeContainer, "container.remove", {
    target: (request, response) => ({ id: response?.id ?? request.id }),
    fields: ({ force }) => ({ force: force || undefined }),
  }),
  row(container.execContainer, "container.exec", {
    // Which program, not its arguments.
    target: ({ input }) => ({ id: input?.message.case === "start" ? input.message.value.id : undefined }),
    fields: ({ input }) => ({
      program: input?.message.case === "start" ? input.message.value.command[0] : undefined,
    }),
  }),
  row(container.attachContainer, "container.attach", {
    target: ({ input }) => ({ id: input?.message.case === "start" ? input.message.value.id : undefined }),
  }),
  row(container.removeVolume, "volume.remove", { target: (request) => ({ name: request.name }) }),
  row(endpoint.deployEndpoint, "endpoint.deploy", {
    target: (request, response) => ({ id: response?.endpoint?.id, name: request.name }),
    fields: (request, response) => ({
      version: response?.deployment?.version,
      image: response?.deployment?.imageId,
      public: request.spec?.public || undefined,
    }),
  }),
  row(endpoint.deleteEndpoint, "endpoint.delete", {
    target: (request, response) => ({ id: response?.endpoint?.id, name: request.name }),
  }),
  row(endpoint.uploadCode, "code.upload", {
    target: (request, response) => ({ id: response?.sha256 ?? request.sha256 }),
    fields: (_, response) => ({ bytes: response === undefined ? undefined : Number(response.sizeBytes) }),
  }),
  row(SchedulerService.method.registerWorker, "worker.register", {
    strict: false,
    target: ({ workerId, name }) => ({ id: workerId, name }),
    fields: ({ address, version }) => ({ address, version }),
  }),
];

/** Directories of workers' hosts that a container gets. */
function hostPaths(mounts: readonly { readonly source: string }[]): string | undefined {
  const paths = mounts.map(({ source }) => source).filter((source) => source.startsWith("/"));
  return paths.length === 0 ? undefined : paths.join(", ").slice(0, 500);
}

const refusalsEveryMs = 3_600_000;

/** A method of which only refusals are written down. */
export interface ReadOnlyRow {
  readonly method: DescMethod;
  readonly action: string;
  readonly kind: TargetKind;
  readonly everyMs: number;
}

const readOnly = (method: DescMethod, action: string, everyMs = 0): ReadOnlyRow => ({
  method,
  action,
  everyMs,
  kind: kindOf(action),
});

/** Every other method: it reads, or it is how a worker goes on with what others began. Only refusals are written down. */
export const unaudited: readonly ReadOnlyRow[] = [
  readOnly(image.listImages, "image.list"),
  readOnly(image.getImage, "image.get"),
  readOnly(image.getLazyStatus, "image.lazy_status"),
  readOnly(secret.getSecret, "secret.get"),
  readOnly(secret.listSecrets, "secret.list"),
  readOnly(CredentialService.method.getWorkspaceIdentity, "workspace.identity"),
  readOnly(container.getContainer, "container.get"),
  readOnly(container.listContainers, "container.list"),
  readOnly(container.watchContainer, "container.watch"),
  readOnly(container.streamLogs, "container.logs"),
  readOnly(container.streamEvents, "container.events"),
  readOnly(container.listVolumes, "volume.list"),
  readOnly(endpoint.getEndpoint, "endpoint.get"),
  readOnly(endpoint.listEndpoints, "endpoint.list"),
  readOnly(endpoint.watchEndpoint, "endpoint.watch"),
  readOnly(endpoint.getCode, "code.get"),
  readOnly(workspace.listWorkspaces, "workspace.list"),
  readOnly(token.listTokens, "token.list"),
  readOnly(AuditService.method.listAuditEvents, "audit.list"),
  readOnly(key.listKeys, "key.list"),
  readOnly(health.listSecretHealth, "secret.health"),
  readOnly(health.listWebhooks, "webhook.list"),
  readOnly(health.listAlerts, "webhook.alerts"),
  readOnly(ClusterService.method.listWorkers, "worker.list"),
  // Some every few seconds from each worker; what credentials go out by the last is `secret.use`, where that is decided.
  readOnly(SchedulerService.method.heartbeat, "worker.heartbeat", refusalsEveryMs),
  readOnly(SchedulerService.method.reportContainer, "worker.report", refusalsEveryMs),
  readOnly(SchedulerService.method.refreshImageCredentials, "worker.refresh", refusalsEveryMs),
  readOnly(SchedulerService.method.fetchCode, "worker.code", refusalsEveryMs),
];

function built(response: { event: { case?: string | undefined; value?: unknown } } | undefined) {
  return response?.event.case === "image"
    ? (response.event.value as {
        id: string;
        reference: string;
        credentialSecretName: string;
        manifestDigest: string;
      })
    : undefined;
}

/** What an action is done to: mostly its first word. */
function kindOf(action: string): TargetKind {
  const [first = ""] = action.split(".");
  return (first === "credential" ? "secret" : first === "audit" ? "workspace" : first) as TargetKind;
}
