import { type StopDependencies, stopContainer, stopTimeoutMs } from "../container/stop.ts";
import type { ContainerStore } from "../container/store.ts";
import type { WorkerClients } from "../container/worker-client.ts";
import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { sleep } from "../std/wait.ts";
import { drainContainer, lastWords } from "./container-client.ts";
import type { DemandBook } from "./demand-book.ts";
import type { DeploymentStore } from "./deployment-store.ts";
import type { EndpointSpec } from "./endpoint.ts";
import { type Action, planOf } from "./plan.ts";
import { type Needs, needed } from "./scaling.ts";
import { type EndpointLimits, withLimits } from "./spec.ts";
import type { EndpointStore } from "./store.ts";
import { troubleOf } from "./trouble.ts";
import { activeOf, type ContainerView, type EndpointView } from "./view.ts";
import type { EndpointViews } from "./views.ts";

const log = logger("endpoint");

const tickMs = 1_000;
/** A change may be missed where nobody sees it: the connection that messages come on may be dead and not say so. */
const ticksPerFullLook = 5;
const ticksPerClearing = 60;
const drainAgainMs = 3_000;

export interface LoopDependencies {
  readonly endpoints: Pick<EndpointStore, "subscribe">;
  readonly containers: Pick<ContainerStore, "subscribe">;
  readonly deployments: Pick<DeploymentStore, "decide">;
  readonly views: EndpointViews;
  readonly demands: DemandBook;
  /** Clears away what is old; called now and then. */
  readonly clear: () => Promise<void>;
  readonly needs: Needs;
  readonly limits: EndpointLimits;
  readonly stopping: StopDependencies;
  readonly workers: Pick<WorkerClients, "to">;
}

/**
 * A gateway's part in keeping endpoints as they should be: it looks at an endpoint after each change, and each second at those
 * about which time decides. Any number of gateways do this at once; what is done is done with the endpoint's row locked.
 */
export class EndpointLoop {
  readonly #dependencies: LoopDependencies;
  readonly #ending = new AbortController();
  /** Endpoints that are decided about now; true: once more. */
  readonly #deciding = new Map<string, boolean>();
  readonly #draining = new Map<string, Promise<void>>();
  readonly #lastWords = new Map<string, string>();
  readonly #pauses = new Map<string, ReturnType<typeof setTimeout>>();
  readonly #undo: (() => unknown)[] = [];
  #work: Promise<unknown> = Promise.resolve();
  #ticks = 0;
  #ticking = false;

  private constructor(dependencies: LoopDependencies) {
    this.#dependencies = dependencies;
  }

  static async start(dependencies: LoopDependencies): Promise<EndpointLoop> {
    const loop = new EndpointLoop(dependencies);
    const { endpoints, containers, views } = dependencies;
    loop.#undo.push(views.onRead((id, view) => loop.#look(id, view)));
    const lookAtAll = () => void views.refreshAll().catch(() => undefined);
    const ofEndpoints = await endpoints.subscribe(
      (id) => void views.refresh(id).catch(() => undefined),
      lookAtAll,
    );
    loop.#undo.push(() => ofEndpoints.end());
    const ofContainers = await containers.subscribe((_, __, deploymentId) => {
      if (deploymentId !== undefined) void views.refreshOf(deploymentId).catch(() => undefined);
    }, lookAtAll);
    loop.#undo.push(() => ofContainers.end());
    const timer = setInterval(() => void loop.#tick(), tickMs);
    loop.#undo.push(() => clearInterval(timer));
    return loop;
  }

  /** What is under way at workers goes on there; another gateway, or this one's next start, looks after it. */
  async close(): Promise<void> {
    this.#ending.abort();
    for (const timer of this.#pauses.values()) clearTimeout(timer);
    for (const undo of this.#undo.splice(0)) await undo();
    await this.#work;
    await Promise.all(this.#draining.values());
  }

  /** Decides about an endpoint now: there is more to do than before. */
  decide(endpointId: string): void {
    if (this.#ending.signal.aborted) return;
    const running = this.#deciding.has(endpointId);
    this.#deciding.set(endpointId, running);
    if (running) return;
    const work = this.#decide(endpointId)
      .catch((error: unknown) => {
        log.warn("an endpoint could not be looked after", { endpoint: endpointId, error: messageOf(error) });
      })
      .finally(() => this.#deciding.delete(endpointId));
    this.#work = Promise.all([this.#work, work]);
  }

  async #tick(): Promise<void> {
    // A database that is slow must not be asked by ever more of these.
    if (this.#ticking) return;
    this.#ticking = true;
    const { views, clear } = this.#dependencies;
    try {
      this.#ticks += 1;
      if (this.#ticks % ticksPerFullLook === 0) await this.#lookAtAll();
      else await views.attend();
      if (this.#ticks % ticksPerClearing === 0) await clear();
    } catch {
      // Said where it happened; the next tick tries again.
    } finally {
      this.#ticking = false;
    }
  }

  async #lookAtAll(): Promise<void> {
    const { views, needs } = this.#dependencies;
    await views.refreshAll();
    needs.keepOnly(new Set(views.all.flatMap(({ deployments }) => deployments.map(({ id }) => id))));
  }

  #look(endpointId: string, view: EndpointView | undefined): void {
    if (view === undefined || this.#ending.signal.aborted) return;
    this.#observe(view);
    for (const deployment of view.deployments)
      for (const container of deployment.living)
        if (container.drainingAt !== undefined) this.#drain(view, deployment.spec, container);
    if (this.#plan(view).length > 0) this.decide(endpointId);
    else this.#lookAfterPause(view);
  }

  /** What waits for the end of a pause after failures waits no longer. */
  #lookAfterPause(view: EndpointView): void {
    const active = activeOf(view);
    const until = active === undefined ? undefined : troubleOf(active)?.until;
    if (until === undefined) return;
    const inMs = until.getTime() - view.clockAheadMs - Date.now();
    if (inMs <= 0 || this.#pauses.has(view.id)) return;
    const timer = setTimeout(() => {
      this.#pauses.delete(view.id);
      void this.#dependencies.views.refresh(view.id).catch(() => undefined);
    }, inMs + 1);
    this.#pauses.set(view.id, timer);
  }

  #observe(view: EndpointView): void {
    const { needs, limits } = this.#dependencies;
    for (const { id, demand, spec } of view.deployments)
      needs.observe(id, needed(demand, withLimits(spec, limits)), spec.keepWarmMs, performance.now());
  }

  /** What is to be done by what is known here, with what this gateway has to do by now. */
  #plan(read: EndpointView): Action[] {
    const { needs, limits, demands } = this.#dependencies;
    const now = new Date(Date.now() + read.clockAheadMs);
    const deployments = read.deployments.map((deployment) => ({
      ...deployment,
      demand: demands.together(deployment.id, deployment.demand),
    }));
    const view = { ...read, deployments };
    return planOf(view, { now, limits, peakOf: (id) => needs.peak(id, performance.now()) });
  }

  async #decide(endpointId: string): Promise<void> {
    const { deployments, views, demands, needs, limits } = this.#dependencies;
    do {
      this.#deciding.set(endpointId, false);
      const view = views.get(endpointId);
      const failing = view === undefined ? [] : this.#plan(view).filter((action) => action.kind === "fail");
      for (const { container } of failing) await this.#ask(container);
      const taken = demands.take(view?.deployments.map(({ id }) => id) ?? []);
      const actions = await deployments
        .decide(endpointId, {
          peakOf: (id) => needs.peak(id, performance.now()),
          limits,
          demands: { gatewayId: demands.gatewayId, of: taken },
          lastWords: this.#lastWords,
        })
        .catch((error: unknown) => {
          demands.putBack(taken);
          throw error;
        });
      for (const { container } of failing) this.#lastWords.delete(container.id);
      for (const action of actions) tell(view, action);
      if (actions.length > 0) await views.refresh(endpointId);
    } while (this.#deciding.get(endpointId) === true && !this.#ending.signal.aborted);
  }

  async #ask({ id, worker }: ContainerView): Promise<void> {
    const words = worker === undefined ? "" : await lastWords(this.#dependencies.workers, worker, id);
    this.#lastWords.set(id, words);
  }

  #drain(view: EndpointView, spec: EndpointSpec, container: ContainerView): void {
    if (this.#draining.has(container.id)) return;
    const work = this.#drainAndStop(view, spec, container)
      .catch(async (error: unknown) => {
        if (this.#ending.signal.aborted) return;
        log.warn("a container could not be drained", { container: container.id, error: messageOf(error) });
        // The next look after that tries again.
        await sleep(drainAgainMs, this.#ending.signal).catch(() => undefined);
      })
      .finally(() => this.#draining.delete(container.id));
    this.#draining.set(container.id, work);
  }

  async #drainAndStop(view: EndpointView, spec: EndpointSpec, container: ContainerView): Promise<void> {
    const { workers, stopping } = this.#dependencies;
    const { id, state, readyAt, drainingAt, worker } = container;
    const { signal } = this.#ending;
    if (state === "running" && readyAt !== undefined && worker !== undefined) {
      const drainedMs = Date.now() + view.clockAheadMs - (drainingAt?.getTime() ?? 0);
      const leftMs = Math.max(1, Math.round(spec.requestTimeoutMs - drainedMs));
      await drainContainer(workers, worker, id, leftMs, signal);
    }
    const whole = await stopping.containers.get(view.workspaceId, id);
    await stopContainer(stopping, whole, spec.options.stopTimeoutMs || stopTimeoutMs, signal);
  }
}

function tell(view: EndpointView | undefined, action: Action): void {
  const endpoint = view?.name;
  const workspace = view?.workspaceName;
  switch (action.kind) {
    case "create":
      log.info("containers are made", {
        endpoint,
        workspace,
        version: action.deployment.version,
        count: action.count,
      });
      return;
    case "drain":
      log.info("containers are to end", {
        endpoint,
        workspace,
        containers: action.containers.map(({ id }) => id),
      });
      return;
    case "activate":
      log.info("deployment is active", { endpoint, workspace, version: action.deployment.version });
      return;
    case "fail":
      log.warn("deployment failed", {
        endpoint,
        workspace,
        version: action.deployment.version,
        container: action.container.id,
      });
      return;
    case "retire":
      log.info("deployment is retired", { endpoint, workspace, version: action.deployment.version });
      return;
    case "forget":
      log.info("endpoint is removed", { endpoint, workspace });
  }
}
