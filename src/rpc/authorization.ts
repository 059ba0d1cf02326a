import type { AuditService } from "../gen/oci_node/v1/audit_service_pb.ts";
import type { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import type { CredentialService } from "../gen/oci_node/v1/credential_service_pb.ts";
import type { EndpointService } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import type { HealthService } from "../gen/oci_node/v1/health_service_pb.ts";
import type { ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import type { KeyService } from "../gen/oci_node/v1/key_service_pb.ts";
import type {
  ClusterService,
  JoinService,
  SchedulerService,
} from "../gen/oci_node/v1/scheduler_service_pb.ts";
import type { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import type { TokenService } from "../gen/oci_node/v1/token_service_pb.ts";
import type { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import type { WorkspaceService } from "../gen/oci_node/v1/workspace_service_pb.ts";

/** What a token may do. `worker` and `admin` tokens belong to the cluster, the others to one workspace. */
export type Role = "owner" | "developer" | "viewer" | "worker" | "admin";

/**
 * Who may call a method. By token: one of these roles, and about what: things of the token's own workspace; of a workspace
 * that is named, which for all but administrators must be the token's own; or of the cluster. By certificate: whom the
 * cluster's own authority says the peer is.
 */
export type Access =
  | {
      readonly by: "token";
      readonly roles: readonly Role[];
      readonly about: "own workspace" | "named workspace" | "cluster";
    }
  | { readonly by: "certificate"; readonly of: "worker" | "control plane" };

const inWorkspace = (...roles: readonly Role[]): Access => ({ by: "token", roles, about: "own workspace" });
const aboutWorkspace = (...roles: readonly Role[]): Access => ({
  by: "token",
  roles,
  about: "named workspace",
});
const ofCluster = (...roles: readonly Role[]): Access => ({ by: "token", roles, about: "cluster" });

const look = inWorkspace("owner", "developer", "viewer");
const change = inWorkspace("owner", "developer");
const administer = ofCluster("admin");
/** What a host becomes a worker with; from then on it calls with its certificate. */
const join = ofCluster("worker");
const worker: Access = { by: "certificate", of: "worker" };
const controlPlane: Access = { by: "certificate", of: "control plane" };

/** Every method of a service: one without access does not compile. */
type Methods<Service extends { readonly method: object }> = Readonly<Record<keyof Service["method"], Access>>;

interface Table {
  readonly "oci_node.v1.AuditService": Methods<typeof AuditService>;
  readonly "oci_node.v1.ClusterService": Methods<typeof ClusterService>;
  readonly "oci_node.v1.ContainerService": Methods<typeof ContainerService>;
  readonly "oci_node.v1.CredentialService": Methods<typeof CredentialService>;
  readonly "oci_node.v1.EndpointService": Methods<typeof EndpointService>;
  readonly "oci_node.v1.HealthService": Methods<typeof HealthService>;
  readonly "oci_node.v1.ImageService": Methods<typeof ImageService>;
  readonly "oci_node.v1.JoinService": Methods<typeof JoinService>;
  readonly "oci_node.v1.KeyService": Methods<typeof KeyService>;
  readonly "oci_node.v1.SchedulerService": Methods<typeof SchedulerService>;
  readonly "oci_node.v1.SecretService": Methods<typeof SecretService>;
  readonly "oci_node.v1.TokenService": Methods<typeof TokenService>;
  readonly "oci_node.v1.WorkerService": Methods<typeof WorkerService>;
  readonly "oci_node.v1.WorkspaceService": Methods<typeof WorkspaceService>;
}

/** Who may call what: every method of every service stands here; one that does not is refused to everybody. */
export const authorization: Table = {
  "oci_node.v1.ImageService": {
    buildImage: change,
    listImages: look,
    getImage: look,
    getLazyStatus: look,
    deleteImage: change,
  },
  "oci_node.v1.SecretService": {
    createSecret: change,
    getSecret: look,
    listSecrets: look,
    updateSecret: change,
    deleteSecret: change,
  },
  "oci_node.v1.CredentialService": {
    // Nobody who may only look is given what opens a registry.
    getRegistryCredential: change,
    getWorkspaceIdentity: look,
  },
  "oci_node.v1.ContainerService": {
    runContainer: change,
    getContainer: look,
    listContainers: look,
    stopContainer: change,
    watchContainer: look,
    streamLogs: look,
    killContainer: change,
    removeContainer: change,
    execContainer: change,
    attachContainer: change,
    streamEvents: look,
    listVolumes: look,
    removeVolume: change,
  },
  "oci_node.v1.EndpointService": {
    deployEndpoint: change,
    getEndpoint: look,
    listEndpoints: look,
    watchEndpoint: look,
    deleteEndpoint: change,
    getCode: change,
    uploadCode: change,
  },
  "oci_node.v1.HealthService": {
    listSecretHealth: look,
    checkSecret: change,
    createWebhook: change,
    listWebhooks: look,
    deleteWebhook: change,
    testWebhook: change,
    listAlerts: look,
  },
  "oci_node.v1.WorkspaceService": {
    createWorkspace: administer,
    listWorkspaces: aboutWorkspace("admin", "owner", "developer", "viewer"),
    deleteWorkspace: administer,
  },
  "oci_node.v1.TokenService": {
    createToken: aboutWorkspace("admin", "owner"),
    listTokens: aboutWorkspace("admin", "owner"),
    revokeToken: aboutWorkspace("admin", "owner"),
  },
  "oci_node.v1.AuditService": {
    listAuditEvents: aboutWorkspace("admin", "owner"),
  },
  "oci_node.v1.KeyService": {
    listKeys: administer,
    rotateKey: administer,
    retireKey: administer,
  },
  "oci_node.v1.ClusterService": {
    listWorkers: ofCluster("admin", "owner", "developer", "viewer"),
    revokeWorker: administer,
  },
  "oci_node.v1.JoinService": {
    joinCluster: join,
    renewCertificate: worker,
  },
  "oci_node.v1.SchedulerService": {
    registerWorker: worker,
    heartbeat: worker,
    reportContainer: worker,
    refreshImageCredentials: worker,
    fetchCode: worker,
  },
  "oci_node.v1.WorkerService": {
    prepareContainer: controlPlane,
    startContainer: controlPlane,
    stopContainer: controlPlane,
    streamLogs: controlPlane,
    getTransfer: controlPlane,
    killContainer: controlPlane,
    execContainer: controlPlane,
    attachContainer: controlPlane,
    removeContainer: controlPlane,
    drainContainer: controlPlane,
    removeVolume: controlPlane,
    getLazyStatus: controlPlane,
  },
};

/**
 * Who may call a method.
 *
 * @param service its full name, `oci_node.v1.ImageService`
 * @param method as protobuf-es calls it, `buildImage`
 * @returns undefined for a method that does not stand in the table
 */
export function accessTo(service: string, method: string): Access | undefined {
  const methods = Object.hasOwn(authorization, service) ? authorization[service as keyof Table] : {};
  return Object.hasOwn(methods, method) ? (methods as Record<string, Access>)[method] : undefined;
}
