import {
  Code,
  ConnectError,
  createContextKey,
  type HandlerContext,
  type Interceptor,
} from "@connectrpc/connect";

/** What a token may do. `worker` and `admin` tokens belong to the cluster, the others to one workspace. */
export type Role = "owner" | "developer" | "viewer" | "worker" | "admin";

/** Who calls. */
export interface Caller {
  readonly tokenId: string;
  /** Absent for tokens of the cluster itself. */
  readonly workspaceId: string | undefined;
  readonly role: Role;
}

const callerKey = createContextKey<Caller | undefined>(undefined, { description: "caller" });

const read: readonly Role[] = ["owner", "developer", "viewer"];
const write: readonly Role[] = ["owner", "developer"];

/** Who may call what: every method of the API stands here; one that does not is refused to everybody. */
export const authorization: Readonly<Record<string, readonly Role[]>> = {
  "oci_node.v1.ImageService/BuildImage": write,
  "oci_node.v1.ImageService/ListImages": read,
  "oci_node.v1.ImageService/GetImage": read,
  "oci_node.v1.ImageService/GetLazyStatus": read,
  "oci_node.v1.ImageService/DeleteImage": write,
  "oci_node.v1.SecretService/CreateSecret": write,
  "oci_node.v1.SecretService/GetSecret": read,
  "oci_node.v1.SecretService/ListSecrets": read,
  "oci_node.v1.SecretService/UpdateSecret": write,
  "oci_node.v1.SecretService/DeleteSecret": write,
  "oci_node.v1.CredentialService/GetRegistryCredential": write,
  "oci_node.v1.CredentialService/GetWorkspaceIdentity": read,
  "oci_node.v1.ContainerService/RunContainer": write,
  "oci_node.v1.ContainerService/GetContainer": read,
  "oci_node.v1.ContainerService/ListContainers": read,
  "oci_node.v1.ContainerService/StopContainer": write,
  "oci_node.v1.ContainerService/WatchContainer": read,
  "oci_node.v1.ContainerService/StreamLogs": read,
  "oci_node.v1.WorkspaceService/CreateWorkspace": ["admin"],
  "oci_node.v1.WorkspaceService/ListWorkspaces": ["admin", ...read],
  "oci_node.v1.WorkspaceService/DeleteWorkspace": ["admin"],
  "oci_node.v1.TokenService/CreateToken": ["admin", "owner"],
  "oci_node.v1.TokenService/ListTokens": ["admin", "owner"],
  "oci_node.v1.TokenService/RevokeToken": ["admin", "owner"],
  "oci_node.v1.KeyService/ListKeys": ["admin"],
  "oci_node.v1.KeyService/RotateKey": ["admin"],
  "oci_node.v1.KeyService/RetireKey": ["admin"],
  "oci_node.v1.AuditService/ListAuditEvents": ["admin", "owner"],
  "oci_node.v1.HealthService/ListSecretHealth": read,
  "oci_node.v1.HealthService/CheckSecret": write,
  "oci_node.v1.HealthService/CreateWebhook": write,
  "oci_node.v1.HealthService/ListWebhooks": read,
  "oci_node.v1.HealthService/DeleteWebhook": write,
  "oci_node.v1.HealthService/TestWebhook": write,
  "oci_node.v1.HealthService/ListAlerts": read,
  "oci_node.v1.ClusterService/ListWorkers": ["admin", ...read],
  "oci_node.v1.ClusterService/RevokeWorker": ["admin"],
  "oci_node.v1.JoinService/JoinCluster": ["worker"],
  "oci_node.v1.JoinService/RenewCertificate": ["worker"],
  "oci_node.v1.SchedulerService/RegisterWorker": ["worker"],
  "oci_node.v1.SchedulerService/Heartbeat": ["worker"],
  "oci_node.v1.SchedulerService/ReportContainer": ["worker"],
  "oci_node.v1.SchedulerService/RefreshImageCredentials": ["worker"],
};

/** Looks a bearer token up: its caller, or `undefined` when it is unknown, expired or revoked. */
export type VerifyToken = (token: string) => Promise<Caller | undefined>;

/** Lets a call through only with a valid bearer token whose role the table above allows. */
export function authenticate(verify: VerifyToken): Interceptor {
  return (next) => async (request) => {
    const method = `${request.service.typeName}/${request.method.name}`;
    const caller = await verifyHeader(request.header.get("authorization"), verify);
    if (authorization[method]?.includes(caller.role) !== true) {
      throw new ConnectError(
        `a token with the role ${caller.role} may not call ${method}`,
        Code.PermissionDenied,
      );
    }
    request.contextValues.set(callerKey, caller);
    return next(request);
  };
}

/** Lets a call through only with exactly this token: how a worker knows its schedulers and gateways. */
export function authenticateExactly(matches: (token: string) => boolean): Interceptor {
  return (next) => (request) => {
    if (!matches(bearer(request.header.get("authorization")))) {
      throw new ConnectError("the token is not this worker's", Code.Unauthenticated);
    }
    return next(request);
  };
}

/** The caller of a request that {@link authenticate} let through. */
export function callerOf(context: HandlerContext): Caller {
  const caller = context.values.get(callerKey);
  if (caller === undefined) throw new ConnectError("the call was not authenticated", Code.Unauthenticated);
  return caller;
}

/** The workspace of the caller; tokens of the cluster have none. */
export function workspaceOf(context: HandlerContext): string {
  const { workspaceId } = callerOf(context);
  if (workspaceId === undefined) {
    throw new ConnectError("this token belongs to no workspace", Code.PermissionDenied);
  }
  return workspaceId;
}

async function verifyHeader(header: string | null, verify: VerifyToken): Promise<Caller> {
  const caller = await verify(bearer(header));
  if (caller === undefined) {
    throw new ConnectError("the token is unknown, expired or revoked", Code.Unauthenticated);
  }
  return caller;
}

function bearer(header: string | null): string {
  const match = /^Bearer +(\S+)$/i.exec(header ?? "");
  if (match === null) throw new ConnectError("the call has no bearer token", Code.Unauthenticated);
  return match[1] as string;
}
