import { randomBytes } from "node:crypto";
import type { ContainerNetwork, ContainerOptions } from "../container/options.ts";

/** What a deployment is made of, with every default worked out but the operator's limits. */
export interface EndpointSpec {
  /** Of the workspace's image; a reference was resolved when it was deployed. */
  readonly imageId: string;
  /** As the user named the image. */
  readonly reference: string;
  /** A function of uploaded code; absent: the command listens on `port` itself. */
  readonly handler?: { readonly codeSha256: string; readonly name: string } | undefined;
  readonly command: readonly string[];
  readonly port: number;
  readonly env: Readonly<Record<string, string>>;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly network: ContainerNetwork;
  readonly options: ContainerOptions;
  /** Anybody may call it; else a token of the workspace is needed. */
  readonly public: boolean;
  /** From the request's arrival to the answer's end. */
  readonly requestTimeoutMs: number;
  /** Requests at once per container. */
  readonly concurrency: number;
  /** Requests that may wait for a container. */
  readonly queueMax: number;
  readonly containersMin: number;
  readonly containersMax: number;
  /** How long a container without requests is kept. */
  readonly keepWarmMs: number;
  readonly startupTimeoutMs: number;
  /** Of a request's body. */
  readonly bodyBytesMax: number;
}

export type DeploymentState = "starting" | "active" | "draining" | "retired" | "failed";

export interface Deployment {
  readonly id: string;
  readonly endpointId: string;
  readonly workspaceId: string;
  /** From 1. */
  readonly version: number;
  readonly state: DeploymentState;
  readonly spec: EndpointSpec;
  /** Why it failed. */
  readonly reason: string | undefined;
  readonly createdAt: Date;
}

export interface Endpoint {
  readonly id: string;
  readonly workspaceId: string;
  readonly name: string;
  readonly activeDeploymentId: string | undefined;
  readonly deletingAt: Date | undefined;
  readonly createdAt: Date;
  readonly updatedAt: Date;
}

/** What a gateway has for a deployment now. */
export interface Demand {
  /** Requests that wait for a container. */
  readonly queued: number;
  /** Requests that a container has. */
  readonly inFlight: number;
}

/** A container that takes requests. */
export interface Target {
  readonly containerId: string;
  readonly worker: { readonly id: string; readonly address: string; readonly bootNonce: string };
}

/** Where requests for an endpoint go now. A new one is made at each change; nothing of it changes. */
export interface Route {
  readonly endpointId: string;
  readonly endpointName: string;
  readonly workspaceId: string;
  /** The deployment that takes the requests. */
  readonly deploymentId: string;
  readonly spec: EndpointSpec;
  readonly targets: readonly Target[];
  /** Why containers of it do not come up at present. */
  readonly problem: string | undefined;
}

/** Whose endpoint a path names: the caller's own workspace's, or the workspace that stands in the path. */
export type RouteOf = { readonly workspaceId: string } | { readonly workspaceName: string };

/** What the front asks of those who keep endpoints and their containers. */
export interface Routing {
  /** Looked up in memory where it is known; `undefined`: there is no such endpoint, or no deployment of it ever came up. */
  find(name: string, of: RouteOf): Promise<Route | undefined>;
  /** The deployment's route as it is now; `undefined`: it takes no requests any more. */
  current(deploymentId: string): Route | undefined;
  /** Calls back after each change of a route that was found. */
  onChange(listener: (deploymentId: string) => void): () => void;
  /** Tells what there is to do; called at each change, as often as need be. More than there was is looked at at once. */
  demand(deploymentId: string, demand: Demand): void;
}

export function newEndpointId(): string {
  return `e-${randomBytes(8).toString("hex")}`;
}

export function newDeploymentId(): string {
  return `d-${randomBytes(8).toString("hex")}`;
}
