import { eq, sql } from "drizzle-orm";
import { defaultOptions } from "../container/options.ts";
import { ContainerStore } from "../container/store.ts";
import type { Database } from "../db/database.ts";
import { insertImage, insertWorkspace } from "../db/rows.test-kit.ts";
import { containers } from "../db/schema.ts";
import { SchedulerStore } from "../scheduler/store.ts";
import { registeringWorker } from "../scheduler/worker-rows.test-kit.ts";
import { DemandStore } from "./demand-store.ts";
import { DeploymentStore } from "./deployment-store.ts";
import type { EndpointSpec } from "./endpoint.ts";
import type { EndpointLimits } from "./spec.ts";
import { EndpointStore } from "./store.ts";
import type { EndpointView } from "./view.ts";

export const generousLimits: EndpointLimits = { bodyBytesMax: 1e8, containersMax: 100, queueMax: 10_000 };

export function specOf(imageId: string, change: Partial<EndpointSpec> = {}): EndpointSpec {
  return {
    imageId,
    reference: "ghcr.io/o/r:1",
    command: ["serve"],
    port: 8000,
    env: {},
    cpuMillis: 0,
    memoryBytes: 0,
    network: "private",
    options: defaultOptions,
    public: false,
    requestTimeoutMs: 60_000,
    concurrency: 1,
    queueMax: 100,
    containersMin: 0,
    containersMax: 10,
    keepWarmMs: 60_000,
    startupTimeoutMs: 60_000,
    bodyBytesMax: 0,
    ...change,
  };
}

/** A workspace with an image and a worker that serves, and the steps of containers as a worker would report them. */
export class EndpointScene {
  readonly endpoints: EndpointStore;
  readonly deployments: DeploymentStore;
  readonly demands: DemandStore;
  readonly containers: ContainerStore;
  readonly scheduling: SchedulerStore;
  readonly workspaceId: string;
  readonly imageId: string;
  readonly workerId: string;

  readonly #database: Database;

  private constructor(database: Database, workspaceId: string, imageId: string, workerId: string) {
    this.#database = database;
    this.containers = new ContainerStore(database);
    this.endpoints = new EndpointStore(database, this.containers);
    this.deployments = new DeploymentStore(database, this.containers);
    this.demands = new DemandStore(database);
    this.scheduling = new SchedulerStore(database);
    this.workspaceId = workspaceId;
    this.imageId = imageId;
    this.workerId = workerId;
  }

  /** @param address where the worker serves */
  static async make(database: Database, workerId = "w1", address?: string): Promise<EndpointScene> {
    const workspaceId = await insertWorkspace(database);
    const imageId = await insertImage(database, workspaceId);
    const scene = new EndpointScene(database, workspaceId, imageId, workerId);
    await scene.scheduling.register(registeringWorker(workerId, workerId, address));
    return scene;
  }

  async deploy(name: string, change: Partial<EndpointSpec> = {}, force = false) {
    const spec = specOf(this.imageId, change);
    return await this.endpoints.deploy({ workspaceId: this.workspaceId, name, spec, force });
  }

  async view(name: string): Promise<EndpointView> {
    const id = await this.endpoints.find(name, { workspaceId: this.workspaceId });
    const [view] = id === undefined ? [] : await this.endpoints.views([id]);
    if (view === undefined) throw new Error(`no endpoint ${name}`);
    return view;
  }

  /** Ids of its containers that have not ended and are kept, the latest first. */
  async living(name: string, version?: number): Promise<string[]> {
    const { deployments } = await this.view(name);
    return deployments
      .filter((deployment) => version === undefined || deployment.version === version)
      .flatMap(({ living }) => living)
      .filter(({ drainingAt }) => drainingAt === undefined)
      .map(({ id }) => id);
  }

  async decide(name: string, lastWords = new Map<string, string>()): Promise<string[]> {
    const { id } = await this.view(name);
    const peakOf = () => ({ needed: 0, watchedMs: Number.POSITIVE_INFINITY });
    const done = await this.deployments.decide(id, { peakOf, limits: generousLimits, lastWords });
    return done.map(({ kind }) => kind);
  }

  async run(containerId: string): Promise<void> {
    const { workerId } = this;
    await this.containers.transition(containerId, {}, "scheduled", { workerId });
    await this.containers.transition(containerId, {}, "preparing");
    await this.containers.transition(containerId, {}, "running");
  }

  /** Brings a queued container to where it takes requests. */
  async ready(containerId: string, at = new Date()): Promise<void> {
    await this.run(containerId);
    await this.containers.observe(containerId, {}, { phases: { ready: at } });
  }

  /** Makes an ended container one that ended an hour ago. */
  async age(containerId: string): Promise<void> {
    const hourAgo = sql`now() - interval '1 hour'`;
    const set = { createdAt: hourAgo, updatedAt: hourAgo };
    await this.#database.query((db) => db.update(containers).set(set).where(eq(containers.id, containerId)));
  }

  async fail(containerId: string, reason = "its port 8000 did not answer"): Promise<void> {
    await this.containers.transition(containerId, {}, "failed", { reason });
  }
}
