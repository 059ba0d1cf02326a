import type { DemandBook } from "./demand-book.ts";
import type { Demand, Route, RouteOf, Routing } from "./endpoint.ts";
import { problemOf } from "./plan.ts";
import { type Needs, needed } from "./scaling.ts";
import { type EndpointLimits, withLimits } from "./spec.ts";
import { troubleOf } from "./trouble.ts";
import { activeOf, type EndpointView, isReady, kept } from "./view.ts";
import type { EndpointViews } from "./views.ts";

export interface RoutingDependencies {
  readonly views: EndpointViews;
  readonly demands: DemandBook;
  readonly needs: Needs;
  readonly limits: EndpointLimits;
  /** Called when there is more to do than the deployment's containers, those that start among them, can take. */
  readonly moreNeeded: (endpointId: string) => void;
}

interface Known {
  readonly route: Route;
  /** What of it can change. */
  readonly print: string;
  /** `Date.now()` from when its problem is none any more. */
  readonly problemUntil: number;
}

/** Where requests go, worked out of what is known of the endpoints. */
export class LiveRouting implements Routing {
  readonly #dependencies: RoutingDependencies;
  readonly #routes = new Map<string, Known>();
  /** The deployment that each endpoint's requests went to last. */
  readonly #deploymentOf = new Map<string, string>();
  readonly #listeners = new Set<(deploymentId: string) => void>();
  readonly #unsubscribe: () => void;

  constructor(dependencies: RoutingDependencies) {
    this.#dependencies = dependencies;
    this.#unsubscribe = dependencies.views.onRead((id, view) => this.#read(id, view));
  }

  close(): void {
    this.#unsubscribe();
  }

  async find(name: string, of: RouteOf): Promise<Route | undefined> {
    const { views } = this.#dependencies;
    const view = views.known(name, of) ?? (await views.find(name, of));
    const active = view?.activeDeploymentId;
    return active === undefined ? undefined : this.current(active);
  }

  current(deploymentId: string): Route | undefined {
    const known = this.#routes.get(deploymentId);
    if (known === undefined || known.problemUntil > Date.now()) return known?.route;
    const route: Route = { ...known.route, problem: undefined };
    this.#routes.set(deploymentId, { route, print: printOf(route), problemUntil: Number.POSITIVE_INFINITY });
    return route;
  }

  onChange(listener: (deploymentId: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  demand(deploymentId: string, demand: Demand): void {
    const { views, demands, needs, moreNeeded } = this.#dependencies;
    demands.set(deploymentId, demand);
    const view = views.byDeployment(deploymentId);
    const deployment = view?.deployments.find(({ id }) => id === deploymentId);
    if (view === undefined || deployment === undefined) return;
    const spec = withLimits(deployment.spec, this.#dependencies.limits);
    const want = needed(demands.together(deploymentId, deployment.demand), spec);
    needs.observe(deploymentId, want, spec.keepWarmMs, performance.now());
    if (want <= kept(deployment).length) return;
    // Then the loop looks again.
    const until = troubleOf(deployment)?.until.getTime() ?? 0;
    if (until - view.clockAheadMs <= Date.now()) moreNeeded(view.id);
  }

  #read(endpointId: string, view: EndpointView | undefined): void {
    const before = this.#deploymentOf.get(endpointId);
    const known = view === undefined ? undefined : this.#routeOf(view);
    const now = known?.route.deploymentId;
    if (before !== undefined && before !== now) {
      this.#routes.delete(before);
      this.#deploymentOf.delete(endpointId);
      this.#tell(before);
    }
    if (known === undefined || now === undefined) return;
    if (this.#routes.get(now)?.print === known.print) return;
    this.#routes.set(now, known);
    this.#deploymentOf.set(endpointId, now);
    this.#tell(now);
  }

  #routeOf(view: EndpointView): Known | undefined {
    const active = activeOf(view);
    if (active === undefined || view.deletingAt !== undefined) return undefined;
    const trouble = problemOf(active, new Date(Date.now() + view.clockAheadMs));
    const route: Route = {
      endpointId: view.id,
      endpointName: view.name,
      workspaceId: view.workspaceId,
      deploymentId: active.id,
      spec: withLimits(active.spec, this.#dependencies.limits),
      targets: active.living.flatMap((container) =>
        isReady(container) && container.worker !== undefined
          ? [{ containerId: container.id, worker: container.worker }]
          : [],
      ),
      problem: trouble?.problem,
    };
    const problemUntil =
      trouble === undefined ? Number.POSITIVE_INFINITY : trouble.until.getTime() - view.clockAheadMs;
    return { route, print: printOf(route), problemUntil };
  }

  #tell(deploymentId: string): void {
    for (const listener of this.#listeners) listener(deploymentId);
  }
}

function printOf({ deploymentId, targets, problem }: Route): string {
  return JSON.stringify([deploymentId, targets, problem]);
}
