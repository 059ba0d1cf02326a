import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { ContainerChanges } from "../container/changes.ts";
import { ContainerStore } from "../container/store.ts";
import { WorkerClients } from "../container/worker-client.ts";
import { Database } from "../db/database.ts";
import { LogStream } from "../gen/oci_node/v1/container_service_pb.ts";
import { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";
import { type Server, serve } from "../rpc/server.ts";
import { SchedulerStore } from "../scheduler/store.ts";
import type { TlsIdentity } from "../std/tls-identity.ts";
import { DemandBook } from "./demand-book.ts";
import { DemandStore } from "./demand-store.ts";
import { DeploymentStore } from "./deployment-store.ts";
import { generousLimits } from "./endpoint.test-kit.ts";
import { EndpointLoop } from "./loop.ts";
import { LiveRouting } from "./routing.ts";
import { Needs } from "./scaling.ts";
import { EndpointStore } from "./store.ts";
import { EndpointViews } from "./views.ts";

/** A gateway's part in endpoints, with connections of its own to the database. */
export interface TestGateway {
  readonly id: string;
  readonly routing: LiveRouting;
  readonly views: EndpointViews;
  /** How often it asked the database for an endpoint by its name. */
  readonly asked: () => number;
  /** Ends as a gateway that is told to; `false`: as one that died, whose rows stay. */
  close(cleanly?: boolean): Promise<void>;
}

/** A worker that answers to gateways, and gateways that keep endpoints with it. */
export class TestGateways {
  readonly worker: { readonly id: string; readonly address: string };
  /** What the worker was told, in order: `drain c-1`, `stop c-1`. */
  readonly told: string[] = [];
  /** What the worker does when it is told to let a container's requests end. */
  drained: (containerId: string) => Promise<unknown> = async () => undefined;
  /** What every container of the worker has written. */
  output = "";
  readonly #server: Server;
  readonly #identity: TlsIdentity;
  readonly #url: string;
  readonly #open = new Set<TestGateway>();

  private constructor(server: Server, identity: TlsIdentity, url: string) {
    this.#server = server;
    this.#identity = identity;
    this.#url = url;
    this.worker = { id: "w1", address: `${new URL(server.url).origin}/` };
  }

  static async start({
    url,
    database,
  }: {
    readonly url: string;
    readonly database: Database;
  }): Promise<TestGateways> {
    const cluster = await TestCluster.make();
    const containers = new ContainerStore(database);
    const server = await serve({
      host: "127.0.0.1",
      port: 0,
      tls: { identity: await cluster.worker("w1"), clients: "required" },
      interceptors: [],
      routes: (router) => {
        router.service(WorkerService, {
          async drainContainer({ containerId }) {
            gateways.told.push(`drain ${containerId}`);
            await gateways.drained(containerId);
            return {};
          },
          async stopContainer({ containerId }) {
            gateways.told.push(`stop ${containerId}`);
            await containers.transition(containerId, {}, "stopped");
            return {};
          },
          async *streamLogs() {
            yield { stream: LogStream.STDERR, data: Buffer.from(gateways.output) };
          },
        });
      },
    });
    const gateways = new TestGateways(server, await cluster.controlPlane(), url);
    return gateways;
  }

  async begin(): Promise<TestGateway> {
    const database = await Database.connect(this.#url);
    const containers = new ContainerStore(database);
    const endpoints = new EndpointStore(database, containers);
    const demandStore = new DemandStore(database);
    const scheduling = new SchedulerStore(database);
    const workers = new WorkerClients(() => this.#identity);
    const changes = new ContainerChanges({ lookAgainMs: 50 });
    const needs = new Needs();
    let asked = 0;
    const views = new EndpointViews({
      views: (ids) => endpoints.views(ids),
      attended: () => endpoints.attended(),
      endpointOf: (id) => endpoints.endpointOf(id),
      find: (name, of) => {
        asked += 1;
        return endpoints.find(name, of);
      },
    });
    const demands = new DemandBook(
      crypto.randomUUID(),
      demandStore,
      (id) => void views.refreshOf(id).catch(() => undefined),
    );
    const limits = generousLimits;
    const routing = new LiveRouting({ views, demands, needs, limits, moreNeeded: (id) => loop.decide(id) });
    const loop = await EndpointLoop.start({
      endpoints,
      containers,
      deployments: new DeploymentStore(database, containers),
      views,
      demands,
      clear: () => demandStore.clearAbandoned(),
      needs,
      limits,
      workers,
      stopping: { containers, changes, workers, findWorker: (id) => scheduling.worker(id) },
    });
    const gateway: TestGateway = {
      id: demands.gatewayId,
      routing,
      views,
      asked: () => asked,
      close: async (cleanly = true) => {
        this.#open.delete(gateway);
        await loop.close();
        routing.close();
        if (cleanly) await demands.close();
        await database.close();
      },
    };
    this.#open.add(gateway);
    return gateway;
  }

  /** Ends the gateways that are left. */
  async settle(): Promise<void> {
    for (const gateway of this.#open) await gateway.close();
    this.told.length = 0;
    this.drained = async () => undefined;
  }

  async end(): Promise<void> {
    await this.settle();
    await this.#server.close();
  }
}
