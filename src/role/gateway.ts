import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { auditService } from "../audit/service.ts";
import type { Config } from "../config.ts";
import { ContainerChanges } from "../container/changes.ts";
import { containerService } from "../container/service.ts";
import { AuditService } from "../gen/oci_node/v1/audit_service_pb.ts";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { CredentialService } from "../gen/oci_node/v1/credential_service_pb.ts";
import { HealthService } from "../gen/oci_node/v1/health_service_pb.ts";
import { ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { KeyService } from "../gen/oci_node/v1/key_service_pb.ts";
import { ClusterService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";

import { alertMethods } from "../health/alert-service.ts";

import { healthService } from "../health/health-service.ts";
import { secretChecks } from "../health/secret-checks-service.ts";

import { credentialService } from "../image/credential-service.ts";
import { imageService } from "../image/service.ts";
import { IndexStore } from "../index/store.ts";
import { LayerIntake } from "../mount/layer-intake.ts";
import { auditCalls, auditFirst } from "../rpc/audit.ts";
import { authenticate } from "../rpc/authentication.ts";
import { translateErrors } from "../rpc/error.ts";
import { refuseNul } from "../rpc/request-text.ts";
import { type Server, serve } from "../rpc/server.ts";
import { clusterService } from "../scheduler/cluster-service.ts";
import { askWorkers } from "../scheduler/lazy-status-client.ts";
import type { IdentityIssuer } from "../secret/identity-issuer.ts";
import { getWorkspaceIdentity } from "../secret/identity-service.ts";
import { keyService } from "../secret/key-service.ts";
import { secretService } from "../secret/service.ts";
import type { SecretMetadata } from "../secret/vault.ts";
import type { ControlPlane } from "./control-plane.ts";
import { createFront, type LocalWorker } from "./endpoint-front.ts";
import { startEndpoints } from "./endpoints.ts";
import { listenSettings } from "./listening.ts";
import { MetricsEndpoint } from "./metrics-endpoint.ts";
import { createIdentitiesFor } from "./providers.ts";
import { serveTenants } from "./tenants.ts";
import { answerWellKnown } from "./well-known.ts";
import { containerPolicies } from "./workspace-policy.ts";

export const gatewayPort = 7070;

/** The role that users talk to: images, secrets, containers. */
export interface Gateway {
  readonly server: Server;
  close(): Promise<void>;
}

export interface GatewayOptions {
  /** Whether builds keep the layers' contents in the worker's cache, which is on this host. */
  readonly keepLayers: boolean;
  readonly localWorker: () => LocalWorker | undefined;
}

export async function startGateway(
  config: Config,
  plane: ControlPlane,
  { keepLayers, localWorker }: GatewayOptions,
): Promise<Gateway> {
  const { images, containers, scheduling, tokens, vault, workerClients, secretHealth } = plane;
  const changes = new ContainerChanges();
  const subscription = await containers.subscribe(
    (id, workspaceId) => changes.announce(id, workspaceId),
    () => changes.announce(undefined),
  );
  const { cache_quota: quotaBytes } = config.worker;
  const keeper = keepLayers ? await LayerIntake.open(config.cacheDir, quotaBytes) : undefined;
  const index = await IndexStore.open(config.indexDir);
  const stopping = {
    containers,
    changes,
    workers: workerClients,
    findWorker: (id: string) => scheduling.worker(id),
  };
  const endpoints = await startEndpoints(config, plane, {
    stopping,
    gatewayUrl: () => config.gateway.url ?? server.url,
  });
  const { front, ...requests } = createFront(plane, endpoints.routing, localWorker);
  const buildDependencies = {
    registry: plane.registry,
    providersOf: plane.providersOf,
    defaultProvider: plane.defaultProvider,
    identitiesFor: createIdentitiesFor(plane),
    vault,
    images,
    index,
    scratchDir: join(config.indexDir, "scratch"),
    keeper,
    limits: config.indexLimits,
    onProved: (secret: SecretMetadata) => secretHealth.monitor.proved(secret),
  };
  const metrics = new MetricsEndpoint(plane.metrics, (token) => tokens.verify(token), requests.metrics);
  const server = await serve({
    ...listenSettings("gateway", config.gateway, gatewayPort),
    verify: (token) => tokens.verify(token),
    interceptors: [
      refuseNul,
      auditCalls(plane.audit),
      translateErrors,
      authenticate((token) => tokens.verify(token)),
      auditFirst(plane.audit),
    ],
    first: (request, response) => front.answer(request, response),
    fallback: (request, response) => answerPlainHttp(plane.issuer, metrics, request, response),
    routes: (router) => {
      router.service(
        ImageService,
        imageService({
          ...buildDependencies,
          askWorkers: (image, signal) => askWorkers(scheduling, workerClients, image, signal),
        }),
      );
      router.service(AuditService, auditService(plane.auditEvents));
      router.service(
        SecretService,
        secretService({ vault, providersOf: plane.providersOf, checks: secretChecks(secretHealth) }),
      );
      router.service(CredentialService, {
        getWorkspaceIdentity: getWorkspaceIdentity(plane.describeIdentity),
        ...credentialService({
          vault,
          images,
          providersOf: plane.providersOf,
          defaultProvider: plane.defaultProvider,
          releaseAllowed: async (workspaceId) => (await plane.policies(workspaceId)).release_credentials,
        }),
      });
      router.service(HealthService, {
        ...healthService(secretHealth),
        ...alertMethods({
          ...plane.alerting,
          webhooks: plane.registry.webhooks,
          workspaces: plane.workspaces,
        }),
      });
      router.service(KeyService, keyService(plane.rotation));
      router.service(ClusterService, clusterService(scheduling, containers));
      serveTenants(router, { plane, index, stopping });
      endpoints.serve(router);
      router.service(
        ContainerService,
        containerService({
          ...stopping,
          images,
          housekeeping: plane.housekeeping,
          volumes: plane.volumes,
          policyOf: containerPolicies(plane.policies),
          isGone: async (id) => ((await scheduling.worker(id))?.state ?? "revoked") === "revoked",
        }),
      );
    },
  });
  return {
    server,
    async close() {
      requests.close();
      await server.close();
      await endpoints.close();
      await keeper?.close();
      await subscription.end();
    },
  };
}

function answerPlainHttp(
  issuer: IdentityIssuer | undefined,
  metrics: MetricsEndpoint,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  if (issuer !== undefined && answerWellKnown(issuer, request, response)) return;
  if (metrics.answer(request, response)) return;
  const healthy = request.method === "GET" && request.url === "/healthz";
  response.writeHead(healthy ? 200 : 404, { "content-type": "text/plain" });
  response.end(healthy ? "ok\n" : "oci-node serves its API here, not pages\n");
}
