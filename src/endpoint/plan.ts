import type { Demand } from "./endpoint.ts";
import { needed, type ScalingInput, scale } from "./scaling.ts";
import { type EndpointLimits, withLimits } from "./spec.ts";
import { type Trouble, troubleOf } from "./trouble.ts";
import {
  activeOf,
  type ContainerView,
  type DeploymentView,
  type EndpointView,
  isReady,
  kept,
} from "./view.ts";

/** One thing that is to be written about an endpoint. */
export type Action =
  | { readonly kind: "create"; readonly deployment: DeploymentView; readonly count: number }
  | { readonly kind: "drain"; readonly containers: readonly ContainerView[] }
  /** Takes the requests from now on, in place of the one that does. */
  | { readonly kind: "activate"; readonly deployment: DeploymentView }
  | { readonly kind: "fail"; readonly deployment: DeploymentView; readonly container: ContainerView }
  /** Its last container has ended. */
  | { readonly kind: "retire"; readonly deployment: DeploymentView }
  /** The last container of an endpoint that is being removed has ended. */
  | { readonly kind: "forget" };

export interface PlanInput {
  /** The database's time. */
  readonly now: Date;
  readonly peakOf: (deploymentId: string) => ScalingInput["peak"];
  readonly limits: EndpointLimits;
}

/** How long a deployment of which a container answers waits for as many as the requests of the one before need. */
const takeOverMs = 5_000;

/** What is to be done about an endpoint now; nothing where all is as it should be. */
export function planOf(view: EndpointView, input: PlanInput): Action[] {
  if (view.deletingAt !== undefined) {
    const living = view.deployments.flatMap((deployment) => deployment.living);
    return living.length === 0 ? [{ kind: "forget" }] : drain(living);
  }
  const demand = activeOf(view)?.demand ?? { queued: 0, inFlight: 0 };
  return view.deployments.flatMap((deployment) => ofDeployment(deployment, demand, input));
}

/** @param demand what there is to do for the deployment that takes the requests now */
function ofDeployment(deployment: DeploymentView, demand: Demand, input: PlanInput): Action[] {
  switch (deployment.state) {
    case "starting":
      return starting(deployment, demand, input);
    case "active":
      return scaled(deployment, input);
    case "draining":
      return deployment.living.length === 0 ? [{ kind: "retire", deployment }] : drain(deployment.living);
    case "retired":
    case "failed":
      return drain(deployment.living);
  }
}

/** One container first, to see that it answers; then as many as the requests need that will come. */
function starting(deployment: DeploymentView, demand: Demand, { now, limits }: PlanInput): Action[] {
  const spec = withLimits(deployment.spec, limits);
  const living = kept(deployment);
  const ready = living.filter(isReady);
  const latestEnd = deployment.ended.find(({ lost, drainingAt }) => !lost && drainingAt === undefined);
  if (ready.length === 0) {
    if (latestEnd !== undefined) return [{ kind: "fail", deployment, container: latestEnd }];
    return living.length === 0 ? [{ kind: "create", deployment, count: 1 }] : [];
  }
  const want = Math.max(1, needed(demand, spec));
  if (ready.length >= want || ready.some((container) => waited(container, spec.startupTimeoutMs, now)))
    return [{ kind: "activate", deployment }];
  const more = latestEnd === undefined ? want - living.length : 0;
  return more > 0 ? [{ kind: "create", deployment, count: more }] : [];
}

/** Its worker's clock may be wrong: then the time that it may take to answer is added to when it was made. */
function waited({ readyAt, createdAt }: ContainerView, startupTimeoutMs: number, now: Date): boolean {
  const ready = Math.min(readyAt?.getTime() ?? 0, createdAt.getTime() + startupTimeoutMs);
  return now.getTime() - ready >= takeOverMs;
}

function scaled(deployment: DeploymentView, { now, peakOf, limits }: PlanInput): Action[] {
  const living = kept(deployment);
  const { create, retire } = scale({
    spec: withLimits(deployment.spec, limits),
    demand: deployment.demand,
    living: living.map((container) => ({ ...container, ready: isReady(container) })),
    lastUsedAt: deployment.lastUsedAt,
    peak: peakOf(deployment.id),
    pausedUntil: troubleOf(deployment)?.until,
    now,
  });
  if (create > 0) return [{ kind: "create", deployment, count: create }];
  return drain(living.filter(({ id }) => retire.includes(id)));
}

function drain(living: readonly ContainerView[]): Action[] {
  const containers = living.filter(({ drainingAt }) => drainingAt === undefined);
  return containers.length === 0 ? [] : [{ kind: "drain", containers }];
}

/** Why requests of an active deployment wait in vain at present. */
export function problemOf(deployment: DeploymentView, now: Date): Trouble | undefined {
  if (deployment.living.some(isReady)) return undefined;
  const trouble = troubleOf(deployment);
  return trouble?.problem === undefined || trouble.until <= now ? undefined : trouble;
}
