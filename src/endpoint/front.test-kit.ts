import * as http from "node:http";
import { type AddressInfo, connect, createServer, type Server as NetServer, type Socket } from "node:net";
import { TestCluster } from "../cluster/cluster.test-kit.ts";
import { isControlPlane } from "../cluster/names.ts";
import { defaultOptions } from "../container/options.ts";
import { type Server, serve } from "../rpc/server.ts";
import { answerForward } from "../runtime/requests/forward-service.ts";
import { Forwarder } from "../runtime/requests/forwarder.ts";
import type { Demand, EndpointSpec, Route, RouteOf, Routing, Target } from "./endpoint.ts";
import { ForwardClients } from "./forward-client.ts";
import { EndpointFront } from "./front.ts";

export const insiderToken = `ocn_${"a".repeat(43)}`;
export const viewerToken = `ocn_${"b".repeat(43)}`;
export const strangerToken = `ocn_${"c".repeat(43)}`;
const holders = new Map([
  [insiderToken, { workspaceId: "w", role: "developer" }],
  [viewerToken, { workspaceId: "w", role: "viewer" }],
  [strangerToken, { workspaceId: "other", role: "owner" }],
]);

/** Routes that a test sets by hand; everything else as at a gateway. */
export class FixedRouting implements Routing {
  readonly routes = new Map<string, Route>();
  readonly demands: (Demand & { readonly deploymentId: string })[] = [];
  readonly #listeners = new Set<(deploymentId: string) => void>();

  set(route: Route): void {
    this.routes.set(route.deploymentId, route);
    for (const listener of this.#listeners) listener(route.deploymentId);
  }

  remove(deploymentId: string): void {
    this.routes.delete(deploymentId);
    for (const listener of this.#listeners) listener(deploymentId);
  }

  async find(name: string, of: RouteOf): Promise<Route | undefined> {
    const id = "workspaceId" in of ? of.workspaceId : of.workspaceName === "default" ? "w" : undefined;
    return [...this.routes.values()].findLast(
      (route) => route.endpointName === name && route.workspaceId === id,
    );
  }

  current(deploymentId: string): Route | undefined {
    return this.routes.get(deploymentId);
  }

  onChange(listener: (deploymentId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  demand(deploymentId: string, demand: Demand): void {
    this.demands.push({ deploymentId, ...demand });
  }
}

export function spec(more: Partial<EndpointSpec> = {}): EndpointSpec {
  return {
    imageId: "i",
    reference: "r",
    command: [],
    port: 8000,
    env: {},
    cpuMillis: 0,
    memoryBytes: 0,
    network: "host",
    options: defaultOptions,
    public: false,
    requestTimeoutMs: 10_000,
    concurrency: 100,
    queueMax: 100,
    containersMin: 0,
    containersMax: 10,
    keepWarmMs: 0,
    startupTimeoutMs: 10_000,
    bodyBytesMax: 16 * 1024 * 1024,
    ...more,
  };
}

/** Where a container is: in the gateway's own process, or behind a worker's server. */
export type Where = "local" | "remote";

/** A gateway before containers that are HTTP servers of the test's. */
export class FrontScene {
  readonly routing = new FixedRouting();
  readonly forwarder = new Forwarder();
  readonly front: EndpointFront;
  readonly #servers: http.Server[] = [];
  readonly #programs: NetServer[] = [];
  readonly #sockets = new Set<Socket>();
  #target: Target["worker"] = { id: "here", address: "", bootNonce: "b" };
  #worker: Server | undefined;
  #clients: ForwardClients;
  gateway!: Server;

  private constructor(identity: ConstructorParameters<typeof ForwardClients>[0], where: Where) {
    const local = { workerId: "here", forwarding: this.forwarder };
    this.#clients = new ForwardClients(identity, () => (where === "local" ? local : undefined));
    this.front = new EndpointFront({
      routing: this.routing,
      verify: async (token) => holders.get(token),
      forwardingTo: (worker) => this.#clients.to(worker),
    });
  }

  static async open(where: Where = "local"): Promise<FrontScene> {
    const cluster = await TestCluster.make();
    const identity = await cluster.controlPlane();
    const scene = new FrontScene(() => identity, where);
    if (where === "remote") {
      scene.#worker = await serve({
        host: "127.0.0.1",
        port: 0,
        tls: { identity: await cluster.worker("there"), clients: "required" },
        interceptors: [],
        routes: () => undefined,
        first: answerForward(scene.forwarder, isControlPlane),
      });
      scene.#target = { id: "there", address: scene.#worker.url, bootNonce: "b" };
    }
    scene.gateway = await serve({
      host: "127.0.0.1",
      port: 0,
      interceptors: [],
      routes: () => undefined,
      first: (request, response) => scene.front.answer(request, response),
    });
    return scene;
  }

  /** A container whose program is this, and which takes requests. */
  async container(
    id: string,
    program: http.RequestListener,
    { concurrency = 100 }: { readonly concurrency?: number } = {},
  ): Promise<Target> {
    const server = http.createServer(program);
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return this.listening(id, (server.address() as AddressInfo).port, concurrency);
  }

  /** A program that gets to see its connections, and where it listens. */
  async program(onConnection: (socket: Socket) => void): Promise<number> {
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      onConnection(socket);
    });
    this.#programs.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return (server.address() as AddressInfo).port;
  }

  /** A container whose program listens on this port, as far as its worker knows. */
  listening(id: string, port: number, concurrency = 100): Target {
    this.forwarder.add(id, { host: "127.0.0.1", port, concurrency });
    return { containerId: id, worker: this.#target };
  }

  route(targets: readonly Target[], more: Partial<EndpointSpec> = {}, about: Partial<Route> = {}): Route {
    const route: Route = {
      endpointId: "e-1",
      endpointName: "hello",
      workspaceId: "w",
      deploymentId: "d-1",
      spec: spec(more),
      targets,
      problem: undefined,
      ...about,
    };
    this.routing.set(route);
    return route;
  }

  url(rest = ""): string {
    return `${this.gateway.url}/endpoint/hello${rest}`;
  }

  get(rest = "", init: RequestInit = {}): Promise<Response> {
    return fetch(this.url(rest), {
      ...init,
      headers: { authorization: `Bearer ${insiderToken}`, ...(init.headers as Record<string, string>) },
    });
  }

  /** A connection to the gateway, for what no client would send. */
  async raw(text: string | Buffer): Promise<Socket> {
    const socket = connect(this.gateway.port, "127.0.0.1");
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    await new Promise<void>((resolve) => socket.once("connect", resolve));
    socket.write(text);
    return socket;
  }

  async close(): Promise<void> {
    this.front.close();
    for (const socket of this.#sockets) socket.destroy();
    await this.gateway.close();
    await this.#worker?.close();
    this.#clients.close();
    for (const server of this.#servers) server.closeAllConnections();
    for (const server of [...this.#servers, ...this.#programs])
      await new Promise((resolve) => server.close(resolve));
  }
}

/** All that comes over a connection until it says enough, or ends. */
export async function textOf(socket: Socket, enough: RegExp): Promise<string> {
  let text = "";
  return await new Promise((resolve) => {
    socket.on("data", (piece: Buffer) => {
      text += piece.toString("latin1");
      if (enough.test(text)) resolve(text);
    });
    socket.once("close", () => resolve(`${text}<closed>`));
  });
}
