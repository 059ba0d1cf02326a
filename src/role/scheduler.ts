import { randomUUID } from "node:crypto";
import type { AuditEvent } from "../audit/audit.ts";
import type { Config } from "../config.ts";
import { SchedulerService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { AlertLoop } from "../health/alert-loop.ts";
import { DeliveryLoop } from "../health/delivery-loop.ts";
import { auditCalls, auditFirst } from "../rpc/audit.ts";
import { authenticate } from "../rpc/authentication.ts";
import { translateErrors } from "../rpc/error.ts";
import { type Server, serve } from "../rpc/server.ts";
import { SchedulerLoop } from "../scheduler/loop.ts";
import { schedulerService } from "../scheduler/service.ts";
import type { ControlPlane } from "./control-plane.ts";
import { listenSettings } from "./listening.ts";

export const schedulerPort = 7071;

/** The role that gives queued containers to workers, with their credentials. */
export interface Scheduler {
  readonly server: Server;
  close(): Promise<void>;
}

export async function startScheduler(config: Config, plane: ControlPlane): Promise<Scheduler> {
  const { scheduling, containers, images, vault, tokens, workerClients, callToken } = plane;
  const attaching = {
    vault,
    registry: plane.registry,
    providersOf: plane.providersOf,
    defaultProvider: plane.defaultProvider,
    noteUse: (event: AuditEvent) => void plane.audit.note(event),
    deliveryOf: async (workspaceId: string) => (await plane.policies(workspaceId)).credential_delivery,
  };
  const server = await serve({
    ...listenSettings("scheduler", config.scheduler, schedulerPort),
    interceptors: [
      auditCalls(plane.audit),
      translateErrors,
      authenticate((token) => tokens.verify(token)),
      auditFirst(plane.audit),
    ],
    routes: (router) => {
      router.service(
        SchedulerService,
        schedulerService({ ...attaching, images, store: scheduling, containers, callToken }),
      );
    },
  });
  const loop = await SchedulerLoop.start({
    schedulerId: randomUUID(),
    store: scheduling,
    ...attaching,
    containers,
    images,
    workers: workerClients,
  });
  const { alerts, deliveries, vault: webhookVault } = plane.alerting;
  const delivering = new DeliveryLoop(deliveries, {
    vault: webhookVault,
    webhooks: plane.registry.webhooks,
  });
  const alerting = new AlertLoop(alerts, deliveries, () => delivering.wake());
  return {
    server,
    async close() {
      await alerting.close();
      await delivering.close();
      await loop.close();
      await server.close();
    },
  };
}
