import { randomUUID } from "node:crypto";
import type { ConnectRouter } from "@connectrpc/connect";
import type { Config } from "../config.ts";
import { ContainerChanges } from "../container/changes.ts";
import { removeOutput } from "../container/housekeeping-service.ts";
import type { StopDependencies } from "../container/stop.ts";
import { DemandBook } from "../endpoint/demand-book.ts";
import type { Routing } from "../endpoint/endpoint.ts";
import { EndpointLoop } from "../endpoint/loop.ts";
import { forgetOld } from "../endpoint/retention.ts";
import { LiveRouting } from "../endpoint/routing.ts";
import { Needs } from "../endpoint/scaling.ts";
import { endpointMethods } from "../endpoint/service.ts";
import { EndpointViews } from "../endpoint/views.ts";
import { EndpointService } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { codeService } from "./code.ts";
import type { ControlPlane } from "./control-plane.ts";
import { containerPolicies } from "./workspace-policy.ts";

/** A gateway's endpoints: what is known of them, and their upkeep. */
export interface Endpoints {
  readonly routing: Routing;
  /** Registers EndpointService. */
  serve(router: ConnectRouter): void;
  close(): Promise<void>;
}

export interface EndpointsOptions {
  readonly stopping: StopDependencies & Parameters<typeof removeOutput>[0];
  /** Where this gateway is called; empty: not known. */
  readonly gatewayUrl: () => string;
}

export async function startEndpoints(
  config: Config,
  plane: ControlPlane,
  { stopping, gatewayUrl }: EndpointsOptions,
): Promise<Endpoints> {
  const { endpoints, deployments, demandStore, retention } = plane.endpointStores;
  const { body_max: bodyBytesMax, containers_max: containersMax, queue_max: queueMax } = config.endpoints;
  const limits = { bodyBytesMax, containersMax, queueMax };
  const views = new EndpointViews(endpoints);
  const demands = new DemandBook(
    randomUUID(),
    demandStore,
    (id) => void views.refreshOf(id).catch(() => undefined),
  );
  const needs = new Needs();
  const changes = new ContainerChanges();
  views.onRead((id) => changes.announce(id));
  const routing = new LiveRouting({ views, demands, needs, limits, moreNeeded: (id) => loop.decide(id) });
  const loop = await EndpointLoop.start({
    endpoints,
    containers: plane.containers,
    deployments,
    views,
    demands,
    async clear() {
      await demandStore.clearAbandoned();
      await forgetOld({
        retention,
        housekeeping: plane.housekeeping,
        removeOutput: (container) => removeOutput(stopping, container),
      });
    },
    needs,
    limits,
    stopping,
    workers: plane.workerClients,
  });
  return {
    routing,
    serve(router) {
      router.service(EndpointService, {
        ...endpointMethods({
          endpoints,
          images: plane.images,
          changes,
          limits,
          policyOf: containerPolicies(plane.policies),
          gatewayUrl,
        }),
        ...codeService(config, plane),
      });
    },
    async close() {
      await loop.close();
      routing.close();
      await demands.close();
    },
  };
}
