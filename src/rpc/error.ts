import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import type { AuditErrorCode } from "../audit/error.ts";
import type { ClusterErrorCode } from "../cluster/error.ts";
import type { ContainerErrorCode } from "../container/error.ts";
import type { CredentialErrorCode } from "../credential/error.ts";
import type { DbErrorCode } from "../db/error.ts";
import type { EndpointErrorCode } from "../endpoint/error.ts";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import type { HealthErrorCode } from "../health/error.ts";
import type { ImageErrorCode } from "../image/error.ts";
import type { IndexErrorCode } from "../index/error.ts";
import type { MountErrorCode } from "../mount/error.ts";
import type { ReferenceErrorCode } from "../reference/error.ts";
import type { RegistryErrorCode } from "../registry/error.ts";
import type { RuntimeErrorCode } from "../runtime/error.ts";
import type { SchedulerErrorCode } from "../scheduler/error.ts";
import type { SecretErrorCode } from "../secret/error.ts";
import { CodedError } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { printable } from "../std/printable.ts";

const log = logger("rpc");

/** The longest are those that list what there is to choose from. */
const messageLengthMax = 2000;

const reference: Record<ReferenceErrorCode, Code> = {
  bad_reference: Code.InvalidArgument,
  bad_digest: Code.InvalidArgument,
  bad_platform: Code.InvalidArgument,
};

const credential: Record<CredentialErrorCode, Code> = {
  unknown_key: Code.InvalidArgument,
  missing_key: Code.InvalidArgument,
  incomplete_pair: Code.InvalidArgument,
  bad_value: Code.InvalidArgument,
  registry_mismatch: Code.InvalidArgument,
  no_credentials: Code.InvalidArgument,
  provider_failed: Code.FailedPrecondition,
  provider_unreachable: Code.Unavailable,
  unchanged: Code.FailedPrecondition,
  expired: Code.FailedPrecondition,
  identity_refused: Code.PermissionDenied,
  release_refused: Code.PermissionDenied,
};

const secret: Record<SecretErrorCode, Code> = {
  not_found: Code.NotFound,
  exists: Code.AlreadyExists,
  bad_name: Code.InvalidArgument,
  bad_value: Code.InvalidArgument,
  too_large: Code.InvalidArgument,
  undecryptable: Code.DataLoss,
  key_file: Code.FailedPrecondition,
  key_unreachable: Code.Unavailable,
  key_refused: Code.FailedPrecondition,
  key_missing: Code.FailedPrecondition,
  conflict: Code.Aborted,
  refused: Code.FailedPrecondition,
  in_use: Code.FailedPrecondition,
  replayed: Code.PermissionDenied,
  expired: Code.PermissionDenied,
};

const audit: Record<AuditErrorCode, Code> = {
  not_writable: Code.Unavailable,
  not_written: Code.Internal,
  bad_filter: Code.InvalidArgument,
  not_allowed: Code.PermissionDenied,
};

const cluster: Record<ClusterErrorCode, Code> = {
  bad_token: Code.Unauthenticated,
  wrong_authority: Code.FailedPrecondition,
  bad_request: Code.InvalidArgument,
  not_joined: Code.Unauthenticated,
  revoked: Code.PermissionDenied,
  unreachable: Code.Unavailable,
  identity_file: Code.FailedPrecondition,
};

const registry: Record<RegistryErrorCode, Code> = {
  unauthorized: Code.FailedPrecondition,
  expired: Code.FailedPrecondition,
  denied: Code.FailedPrecondition,
  not_found: Code.NotFound,
  no_such_platform: Code.NotFound,
  rate_limited: Code.ResourceExhausted,
  unreachable: Code.Unavailable,
  tls: Code.Unavailable,
  timeout: Code.Unavailable,
  protocol: Code.Unavailable,
  digest_mismatch: Code.DataLoss,
  range_unsupported: Code.FailedPrecondition,
  egress_refused: Code.InvalidArgument,
  too_large: Code.InvalidArgument,
  unsupported_media_type: Code.InvalidArgument,
  blob_truncated: Code.DataLoss,
};

const index: Record<IndexErrorCode, Code> = {
  bad_tar: Code.InvalidArgument,
  bad_layer: Code.InvalidArgument,
  unsupported_compression: Code.InvalidArgument,
  limit_exceeded: Code.InvalidArgument,
  digest_mismatch: Code.DataLoss,
  corrupt_index: Code.DataLoss,
  not_found: Code.NotFound,
  child_failed: Code.Internal,
  cancelled: Code.Canceled,
  no_space: Code.ResourceExhausted,
};

const image: Record<ImageErrorCode, Code> = {
  not_found: Code.NotFound,
  in_use: Code.FailedPrecondition,
  conflict: Code.Aborted,
  secret_not_found: Code.NotFound,
};

const container: Record<ContainerErrorCode, Code> = {
  name_taken: Code.AlreadyExists,
  not_allowed: Code.PermissionDenied,
  not_running: Code.FailedPrecondition,
  still_running: Code.FailedPrecondition,
  volume_not_found: Code.NotFound,
  volume_in_use: Code.FailedPrecondition,
  not_found: Code.NotFound,
  image_not_found: Code.NotFound,
  image_not_ready: Code.FailedPrecondition,
  illegal_transition: Code.FailedPrecondition,
  conflict: Code.Aborted,
  stale_attempt: Code.FailedPrecondition,
  bad_spec: Code.InvalidArgument,
  worker_away: Code.Unavailable,
  worker_earlier: Code.FailedPrecondition,
};

const health: Record<HealthErrorCode, Code> = {
  webhook_not_found: Code.NotFound,
  too_many_webhooks: Code.FailedPrecondition,
};

const scheduler: Record<SchedulerErrorCode, Code> = {
  unknown_worker: Code.NotFound,
  stale_boot: Code.FailedPrecondition,
  not_its_container: Code.PermissionDenied,
  no_code: Code.NotFound,
  worker_unreachable: Code.Unavailable,
  network_not_allowed: Code.PermissionDenied,
};

const mount: Record<MountErrorCode, Code> = {
  source_failed: Code.Unavailable,
  corrupt_blob: Code.DataLoss,
  corrupt_index: Code.DataLoss,
  mount_failed: Code.Internal,
  unsupported_kernel: Code.FailedPrecondition,
  busy: Code.FailedPrecondition,
  no_space: Code.ResourceExhausted,
  cancelled: Code.Canceled,
};

const runtime: Record<RuntimeErrorCode, Code> = {
  too_many: Code.ResourceExhausted,
  network: Code.FailedPrecondition,
  port_taken: Code.FailedPrecondition,
  volume: Code.FailedPrecondition,
  not_running: Code.FailedPrecondition,
  no_python: Code.FailedPrecondition,
  code: Code.FailedPrecondition,
  nothing_to_run: Code.InvalidArgument,
  command_not_found: Code.InvalidArgument,
  permission: Code.InvalidArgument,
  bad_user: Code.InvalidArgument,
  bad_config: Code.InvalidArgument,
  runtime_missing: Code.FailedPrecondition,
  create_failed: Code.Internal,
  overlay_failed: Code.Internal,
  cgroup: Code.Internal,
  exists: Code.AlreadyExists,
  not_found: Code.NotFound,
  cleanup_failed: Code.Internal,
  cancelled: Code.Canceled,
};

const endpoint: Record<EndpointErrorCode, Code> = {
  not_found: Code.NotFound,
  bad_spec: Code.InvalidArgument,
  code_missing: Code.FailedPrecondition,
  code_too_large: Code.InvalidArgument,
  code_refused: Code.InvalidArgument,
  conflict: Code.Aborted,
  busy: Code.ResourceExhausted,
};

const db: Record<DbErrorCode, Code> = {
  unavailable: Code.Unavailable,
  conflict: Code.AlreadyExists,
  constraint: Code.InvalidArgument,
  serialization: Code.Aborted,
  internal: Code.Internal,
};

/** Every error class of ours by its name: the room that it speaks for, and what each of its codes is to a caller. */
const rooms: Readonly<
  Record<string, { readonly room: string; readonly codes: Readonly<Record<string, Code>> }>
> = {
  ImageReferenceError: { room: "reference", codes: reference },
  CredentialError: { room: "credential", codes: credential },
  AuditError: { room: "audit", codes: audit },
  SecretError: { room: "secret", codes: secret },
  ClusterError: { room: "cluster", codes: cluster },
  RegistryError: { room: "registry", codes: registry },
  IndexError: { room: "index", codes: index },
  ImageError: { room: "image", codes: image },
  ContainerError: { room: "container", codes: container },
  HealthError: { room: "health", codes: health },
  SchedulerError: { room: "scheduler", codes: scheduler },
  MountError: { room: "mount", codes: mount },
  RuntimeError: { room: "runtime", codes: runtime },
  EndpointError: { room: "endpoint", codes: endpoint },
  DbError: { room: "db", codes: db },
};

/**
 * What a caller is told of an error: an error of ours by its code, message and next step; anything else as `internal`
 * without its message, which may hold what must not be shown. The one place where our codes become Connect's.
 */
export function toConnectError(thrown: unknown): ConnectError {
  if (thrown instanceof ConnectError) return thrown;
  if (thrown instanceof DOMException && thrown.name === "AbortError") {
    return new ConnectError("the call was cancelled", Code.Canceled);
  }
  if (thrown instanceof CodedError) {
    const known = rooms[thrown.name];
    const code = known?.codes[thrown.code];
    if (known !== undefined && code !== undefined) {
      // Names that a caller or a registry chose are in it: they must neither fill nor steer a terminal.
      const next = printable(thrown.next ?? "", messageLengthMax);
      const detail = { room: known.room, code: thrown.code, next };
      const message = printable(thrown.message, messageLengthMax);
      return new ConnectError(message, code, undefined, [{ desc: ErrorDetailSchema, value: detail }]);
    }
  }
  // Where it was thrown, but not its message: a foreign error's may hold what must not be logged.
  const { name, stack = "" } = thrown instanceof Error ? thrown : { name: typeof thrown };
  const frames = stack.split("\n").filter((line) => line.trimStart().startsWith("at "));
  log.error("a call failed unexpectedly", { error: name, at: frames.slice(0, 8).map((line) => line.trim()) });
  return new ConnectError("the node failed unexpectedly", Code.Internal);
}

/** Translates whatever a handler throws, streams included. Outermost of a server's interceptors, but for the audit's. */
export const translateErrors: Interceptor = (next) => async (request) => {
  try {
    const response = await next(request);
    return response.stream ? { ...response, message: translateStream(response.message) } : response;
  } catch (thrown) {
    throw toConnectError(thrown);
  }
};

async function* translateStream<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (thrown) {
    throw toConnectError(thrown);
  }
}
