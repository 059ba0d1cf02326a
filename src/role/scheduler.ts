import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AuditEvent } from "../audit/audit.ts";
import { certifiedWorker, joinService } from "../cluster/join-service.ts";
import { authoritiesPath } from "../cluster/membership-client.ts";
import type { Config } from "../config.ts";
import { JoinService, SchedulerService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { AlertLoop } from "../health/alert-loop.ts";
import { DeliveryLoop } from "../health/delivery-loop.ts";

import { HealthLoop } from "../health/health-loop.ts";

import { auditCalls, auditFirst } from "../rpc/audit.ts";
import { authenticate } from "../rpc/authentication.ts";
import { authenticateCertificate, authenticateEither } from "../rpc/certificate-authentication.ts";
import { translateErrors } from "../rpc/error.ts";
import { type Server, serve } from "../rpc/server.ts";
import { Throttle } from "../rpc/throttle.ts";
import { SchedulerLoop } from "../scheduler/loop.ts";
import { schedulerService } from "../scheduler/service.ts";
import { logger } from "../std/log.ts";
import { Rounds } from "../std/rounds.ts";
import type { ControlPlane } from "./control-plane.ts";
import { listenAddress } from "./listening.ts";

export const schedulerPort = 7071;

const log = logger("scheduler");
const cleartextEveryMs = 10 * 60_000;
const codeSweepEveryMs = 3_600_000;
/** Uploaded code that nothing has used for so long goes. */
const codeUnusedMs = 24 * 3_600_000;

/** The role that gives queued containers to workers, with their credentials. */
export interface Scheduler {
  readonly server: Server;
  close(): Promise<void>;
}

export async function startScheduler(config: Config, plane: ControlPlane): Promise<Scheduler> {
  const { scheduling, containers, images, vault, tokens, workerClients, secretHealth } = plane;
  const attaching = {
    vault,
    registry: plane.registry,
    providersOf: plane.providersOf,
    defaultProvider: plane.defaultProvider,
    noteUse: (event: AuditEvent) => void plane.audit.note(event),
    seen: (secretId: string, what: "refused" | "proved") => secretHealth.monitor.seen(secretId, what),
    deliveryOf: async (workspaceId: string) => (await plane.policies(workspaceId)).credential_delivery,
    grantLifeOf: async (workspaceId: string) => (await plane.policies(workspaceId)).grant_life,
  };
  const { authorities, identity, workerIdentities: identities } = plane;
  const server = await serve({
    ...listenAddress(config.scheduler, schedulerPort),
    // Who joins has no certificate yet; each method says for itself what it takes.
    tls: { identity: identity.current, clients: "asked", onCleartext: tellOfCleartext() },
    verify: (token) => tokens.verify(token),
    interceptors: [
      auditCalls(plane.audit),
      translateErrors,
      authenticateEither(
        authenticate((token) => tokens.verify(token)),
        authenticateCertificate({ worker: certifiedWorker(identities) }),
      ),
      auditFirst(plane.audit),
    ],
    fallback: (request, response) => answerAuthorities(authorities.pem, request, response),
    routes: (router) => {
      router.service(
        JoinService,
        joinService({ authorities, identities, lifeMs: config.cluster.certificate_life }),
      );
      router.service(
        SchedulerService,
        schedulerService({
          ...attaching,
          images,
          store: scheduling,
          containers,
          housekeeping: plane.housekeeping,
          codes: plane.codes,
        }),
      );
    },
  });
  identity.onRenewed((renewed) => server.renew(renewed));
  const loop = await SchedulerLoop.start({
    schedulerId: randomUUID(),
    store: scheduling,
    ...attaching,
    containers,
    images,
    workers: workerClients,
    workspaceNameOf: async (workspaceId) => (await plane.policies(workspaceId)).name,
  });
  const { alerts, deliveries, vault: webhookVault } = plane.alerting;
  const delivering = new DeliveryLoop(
    deliveries,
    { vault: webhookVault, webhooks: plane.registry.webhooks },
    { note: (event) => plane.audit.note(event) },
  );
  const alerting = new AlertLoop(alerts, deliveries, () => delivering.wake());
  secretHealth.monitor.onTransition(async () => alerting.wake());
  const codeSweeps = new Rounds("code", codeSweepEveryMs, async () => {
    const swept = await plane.codes.sweep(codeUnusedMs);
    if (swept > 0) log.info("removed code that no deployment uses", { archives: swept });
  });
  const healthLoop = await HealthLoop.start({ ...secretHealth, holder: randomUUID() });
  return {
    server,
    async close() {
      await healthLoop.close();
      await codeSweeps.close();
      await alerting.close();
      await delivering.close();
      await loop.close();
      await server.close();
    },
  };
}

/** Workers of earlier versions try again and again. */
function tellOfCleartext(): (from: string) => void {
  const repeated = new Throttle();
  return (from) => {
    if (!repeated.lets(from, cleartextEveryMs)) return;
    log.warn("somebody does not speak TLS to this scheduler: a worker of an earlier version, or no worker", {
      from,
      next: 'Upgrade the worker of that host, with worker.scheduler_url = "https://…".',
    });
  };
}

/** Who the cluster's authorities are is for everybody to know: a host compares them with its join token. */
function answerAuthorities(pem: string, request: IncomingMessage, response: ServerResponse): void {
  const asked = request.method === "GET" && request.url === authoritiesPath;
  const type = asked ? "application/x-pem-file" : "text/plain";
  response.writeHead(asked ? 200 : 404, { "content-type": type });
  response.end(asked ? pem : "oci-node: a scheduler serves workers here\n");
}
