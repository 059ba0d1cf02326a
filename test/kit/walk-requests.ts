import type { AuditService } from "../../src/gen/oci_node/v1/audit_service_pb.ts";
import type { ContainerService } from "../../src/gen/oci_node/v1/container_service_pb.ts";
import type { CredentialService } from "../../src/gen/oci_node/v1/credential_service_pb.ts";
import type { EndpointService } from "../../src/gen/oci_node/v1/endpoint_service_pb.ts";
import type { HealthService } from "../../src/gen/oci_node/v1/health_service_pb.ts";
import type { ImageService } from "../../src/gen/oci_node/v1/image_service_pb.ts";
import type { KeyService } from "../../src/gen/oci_node/v1/key_service_pb.ts";
import type {
  ClusterService,
  JoinService,
  SchedulerService,
} from "../../src/gen/oci_node/v1/scheduler_service_pb.ts";
import type { SecretService } from "../../src/gen/oci_node/v1/secret_service_pb.ts";
import type { TokenService } from "../../src/gen/oci_node/v1/token_service_pb.ts";
import type { WorkerService } from "../../src/gen/oci_node/v1/worker_service_pb.ts";
import type { WorkspaceService } from "../../src/gen/oci_node/v1/workspace_service_pb.ts";
import { silentEndpoint, type Things } from "./tenant-scene.ts";

/** A request of a method: what it names, and what is to come of it. */
export interface WalkRequest {
  readonly body: object;
  /** What a caller is told who may make the call and names what is his own; default `ok`. */
  readonly own?: string;
  /**
   * What he is told when he names what is another workspace's, or what there is not: the same words for both. Default
   * `not_found`; `same`: whatever it is, it is the same.
   */
  readonly other?: string;
  /** The method that takes the same fields and makes undone what then was done. */
  readonly undo?: string;
}

/** The ways to make a call about things. None that names nothing of them: then there is no other's. */
export type Walk = (things: Things, once: () => string) => readonly WalkRequest[];

type Walks<Service extends { readonly method: object }> = Readonly<Record<keyof Service["method"], Walk>>;

interface WalkTable {
  readonly "oci_node.v1.AuditService": Walks<typeof AuditService>;
  readonly "oci_node.v1.ClusterService": Walks<typeof ClusterService>;
  readonly "oci_node.v1.ContainerService": Walks<typeof ContainerService>;
  readonly "oci_node.v1.CredentialService": Walks<typeof CredentialService>;
  readonly "oci_node.v1.EndpointService": Walks<typeof EndpointService>;
  readonly "oci_node.v1.HealthService": Walks<typeof HealthService>;
  readonly "oci_node.v1.ImageService": Walks<typeof ImageService>;
  readonly "oci_node.v1.JoinService": Walks<typeof JoinService>;
  readonly "oci_node.v1.KeyService": Walks<typeof KeyService>;
  readonly "oci_node.v1.SchedulerService": Walks<typeof SchedulerService>;
  readonly "oci_node.v1.SecretService": Walks<typeof SecretService>;
  readonly "oci_node.v1.TokenService": Walks<typeof TokenService>;
  readonly "oci_node.v1.WorkerService": Walks<typeof WorkerService>;
  readonly "oci_node.v1.WorkspaceService": Walks<typeof WorkspaceService>;
}

const same = { other: "same" } as const;
/** Names nothing: what comes is the caller's own. */
const nothing: Walk = () => [{ body: {}, ...same }];
const credentials = { USERNAME: "nobody", PASSWORD: "no-password-at-all" };
const images = ({ imageId, reference, pinned }: Things) => [imageId, reference, pinned];
const builtAs = ({ imageId, reference }: Things) => [imageId, reference];
const enteredEnded: Walk = ({ ended }) => [
  { body: { input: { start: { id: ended } } }, own: "failed_precondition" },
];
const endpointNamed: Walk = ({ endpoint }) => [{ body: { name: endpoint } }];
const endedOnly: Walk = ({ ended }) => [{ body: { id: ended } }];

/** How each method is called on the walk: one that is missing here does not compile, nor pass. */
export const walkRequests: WalkTable = {
  "oci_node.v1.ImageService": {
    buildImage: ({ secret }, once) => [
      { body: { reference: `unused.invalid/of/${once()}:1`, secretName: secret }, own: "invalid_argument" },
    ],
    listImages: nothing,
    getImage: (things) => [
      ...builtAs(things).map((image) => ({ body: { image } })),
      { body: { image: things.pinned }, own: "not_found" },
    ],
    getLazyStatus: (things) => builtAs(things).map((image) => ({ body: { image } })),
    // Its container lives.
    deleteImage: (things) =>
      builtAs(things).map((image) => ({ body: { image }, own: "failed_precondition" })),
  },
  "oci_node.v1.SecretService": {
    // The name of another workspace's secret is free here.
    createSecret: ({ secret, reference }) => [
      {
        body: { name: secret, registry: registryOf(reference), credentials, unchecked: true },
        own: "already_exists",
        other: "ok",
        undo: "SecretService/DeleteSecret",
      },
    ],
    getSecret: ({ secret }) => [{ body: { name: secret } }],
    listSecrets: nothing,
    updateSecret: ({ secret }) => [
      { body: { name: secret, credentials, unchecked: true }, own: "invalid_argument" },
    ],
    // An image uses it.
    deleteSecret: ({ secret }) => [{ body: { name: secret }, own: "failed_precondition" }],
  },
  "oci_node.v1.CredentialService": {
    getRegistryCredential: ({ reference, secret }) => [{ body: { image: reference, secretName: secret } }],
    getWorkspaceIdentity: nothing,
  },
  "oci_node.v1.ContainerService": {
    runContainer: (things) =>
      images(things).map((image) => ({
        body: { image, command: ["true"] },
        own: image === things.pinned ? "not_found" : "ok",
      })),
    getContainer: ({ ended, running }) =>
      [ended, ended.slice(0, 12), running].map((id) => ({ body: { id } })),
    listContainers: () => [{ body: { all: true }, ...same }],
    stopContainer: endedOnly,
    watchContainer: endedOnly,
    streamLogs: endedOnly,
    killContainer: ({ ended }) => [{ body: { id: ended }, own: "failed_precondition" }],
    // It lives.
    removeContainer: ({ running }) => [{ body: { id: running }, own: "failed_precondition" }],
    execContainer: enteredEnded,
    attachContainer: enteredEnded,
    streamEvents: ({ ended }) => [{ body: { id: ended } }, { body: {}, ...same }],
    listVolumes: nothing,
    // Its container lives.
    removeVolume: ({ volume }) => [{ body: { name: volume }, own: "failed_precondition" }],
  },
  "oci_node.v1.EndpointService": {
    // As it is deployed already.
    deployEndpoint: ({ endpoint, imageId }) => [{ body: { name: endpoint, spec: silentEndpoint(imageId) } }],
    getEndpoint: endpointNamed,
    listEndpoints: nothing,
    watchEndpoint: endpointNamed,
    // Of one that there is not, it is no error.
    deleteEndpoint: ({ endpoint }) => [{ body: { name: `${endpoint}-2` }, other: "ok" }],
    getCode: () => [{ body: { sha256: "0".repeat(64) }, ...same }],
    uploadCode: () => [{ body: { sha256: "0".repeat(64) }, own: "invalid_argument", ...same }],
  },
  "oci_node.v1.HealthService": {
    listSecretHealth: ({ secret }) => [{ body: { secretName: secret } }, { body: {}, ...same }],
    checkSecret: ({ secret }) => [{ body: { secretName: secret } }],
    createWebhook: () => [{ body: { url: "http://127.0.0.1/" }, own: "invalid_argument", ...same }],
    listWebhooks: nothing,
    deleteWebhook: ({ webhook, spareWebhooks }) => [{ body: { id: spareWebhooks.pop() ?? webhook } }],
    testWebhook: ({ webhook }) => [{ body: { id: webhook } }],
    listAlerts: nothing,
  },
  "oci_node.v1.WorkspaceService": {
    createWorkspace: ({ workspace }, once) => [
      { body: { name: workspace }, own: "already_exists", ...same },
      { body: { name: once() }, ...same },
    ],
    listWorkspaces: nothing,
    // Its container lives.
    deleteWorkspace: ({ workspace }) => [{ body: { name: workspace }, own: "failed_precondition" }],
  },
  "oci_node.v1.TokenService": {
    createToken: ({ workspace }) => [
      { body: { workspace, role: "ROLE_VIEWER" } },
      { body: { workspace, role: "ROLE_OWNER" } },
    ],
    listTokens: ({ workspace }) => [{ body: { workspace } }],
    revokeToken: ({ token }) => [{ body: { id: token } }],
  },
  "oci_node.v1.AuditService": {
    listAuditEvents: ({ workspace }) => [{ body: { workspace }, other: "permission_denied" }],
  },
  "oci_node.v1.KeyService": {
    listKeys: nothing,
    rotateKey: nothing,
    retireKey: ({ key }) => [{ body: { id: key }, own: "not_found" }],
  },
  "oci_node.v1.ClusterService": {
    listWorkers: nothing,
    revokeWorker: ({ worker }) => [{ body: { worker }, own: "not_found" }],
  },
  "oci_node.v1.JoinService": { joinCluster: nothing, renewCertificate: nothing },
  "oci_node.v1.SchedulerService": {
    registerWorker: nothing,
    heartbeat: nothing,
    reportContainer: nothing,
    refreshImageCredentials: nothing,
    fetchCode: nothing,
  },
  "oci_node.v1.WorkerService": {
    prepareContainer: nothing,
    startContainer: nothing,
    stopContainer: nothing,
    streamLogs: nothing,
    getTransfer: nothing,
    killContainer: nothing,
    execContainer: nothing,
    attachContainer: nothing,
    removeContainer: nothing,
    drainContainer: nothing,
    removeVolume: nothing,
    getLazyStatus: nothing,
  },
};

/** @returns undefined for a method that is not on the walk */
export function walkOf(service: string, method: string): Walk | undefined {
  const walks = (walkRequests as unknown as Record<string, Record<string, Walk>>)[service];
  return walks?.[method];
}

function registryOf(reference: string): string {
  return reference.slice(0, reference.indexOf("/"));
}
