import type { ContainerState } from "../container/state.ts";
import type { Demand, Deployment, Endpoint, Target } from "./endpoint.ts";

/** A deployment's container, as far as endpoints look at it. */
export interface ContainerView {
  readonly id: string;
  readonly deploymentId: string;
  readonly state: ContainerState;
  readonly createdAt: Date;
  /** When it was written last: of one that has ended, when its end was heard of. By the database's clock, as `createdAt`. */
  readonly updatedAt: Date;
  /** By its worker's clock, as `finishedAt`. */
  readonly readyAt: Date | undefined;
  readonly finishedAt: Date | undefined;
  readonly drainingAt: Date | undefined;
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly oomKilled: boolean;
  readonly reason: string | undefined;
  /** Its worker lost it: it did not end by itself. */
  readonly lost: boolean;
  /** Where it is, while that worker serves. */
  readonly worker: Target["worker"] | undefined;
}

export interface DeploymentView extends Deployment {
  readonly imageId: string;
  readonly lastUsedAt: Date;
  /** Those that have not ended, the latest first. */
  readonly living: readonly ContainerView[];
  /** The latest of those that ended without being asked to, the latest first. */
  readonly ended: readonly ContainerView[];
  /** Of all gateways together. */
  readonly demand: Demand;
}

/** An endpoint with all that is to be known for deciding about its containers, read at once. */
export interface EndpointView extends Endpoint {
  readonly workspaceName: string;
  /** Those that have containers or may get some, and the latest; the latest first. */
  readonly deployments: readonly DeploymentView[];
  /** What the database's clock is ahead of this process's, in milliseconds. */
  readonly clockAheadMs: number;
}

/** Whether it may get requests. */
export function isReady({ state, readyAt, drainingAt, worker }: ContainerView): boolean {
  return state === "running" && readyAt !== undefined && drainingAt === undefined && worker !== undefined;
}

/** Those of a deployment that are not on their way out. */
export function kept({ living }: Pick<DeploymentView, "living">): readonly ContainerView[] {
  return living.filter(({ state, drainingAt }) => drainingAt === undefined && state !== "stopping");
}

export function activeOf(view: EndpointView): DeploymentView | undefined {
  return view.deployments.find(({ id }) => id === view.activeDeploymentId);
}
