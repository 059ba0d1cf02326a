import { messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import type { RouteOf } from "./endpoint.ts";
import type { EndpointStore } from "./store.ts";
import type { EndpointView } from "./view.ts";

const log = logger("endpoint");

/** What became of an endpoint; `undefined`: it is gone. */
export type ViewListener = (endpointId: string, view: EndpointView | undefined) => void;

type Source = Pick<EndpointStore, "views" | "attended" | "find" | "endpointOf">;

/** Of names that there are not: nobody who tries many gets a statement for each. */
const absentLifeMs = 1_000;
const absentMost = 10_000;

/**
 * What this gateway knows of the endpoints that are called, or about which something is to be decided. Read one after another,
 * so that what is read later is newer; what is asked for meanwhile is read together.
 */
export class EndpointViews {
  readonly #source: Source;
  readonly #views = new Map<string, EndpointView>();
  readonly #idByName = new Map<string, string>();
  readonly #idByDeployment = new Map<string, string>();
  readonly #listeners = new Set<ViewListener>();
  readonly #absent = new Map<string, number>();
  #wanted = new Set<string>();
  #wantedDeployments = new Set<string>();
  #next: Promise<void> | undefined;
  #reading: Promise<void> = Promise.resolve();

  constructor(source: Source) {
    this.#source = source;
  }

  get all(): readonly EndpointView[] {
    return [...this.#views.values()];
  }

  get(endpointId: string): EndpointView | undefined {
    return this.#views.get(endpointId);
  }

  byDeployment(deploymentId: string): EndpointView | undefined {
    const id = this.#idByDeployment.get(deploymentId);
    return id === undefined ? undefined : this.#views.get(id);
  }

  known(name: string, of: RouteOf): EndpointView | undefined {
    const id = this.#idByName.get(keyOf(name, of));
    return id === undefined ? undefined : this.#views.get(id);
  }

  /** From memory where it is known. */
  async find(name: string, of: RouteOf): Promise<EndpointView | undefined> {
    const known = this.known(name, of);
    if (known !== undefined) return known;
    const key = keyOf(name, of);
    const absentUntil = this.#absent.get(key);
    if (absentUntil !== undefined && performance.now() < absentUntil) return undefined;
    const id = await this.#source.find(name, of);
    if (id === undefined) {
      if (this.#absent.size >= absentMost) this.#absent.clear();
      this.#absent.set(key, performance.now() + absentLifeMs);
      return undefined;
    }
    await this.refresh(id);
    return this.known(name, of);
  }

  /** Calls back after each reading of an endpoint. */
  onRead(listener: ViewListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads an endpoint anew. @throws DbError */
  refresh(endpointId: string): Promise<void> {
    this.#wanted.add(endpointId);
    return this.#soon();
  }

  /** Reads the endpoint of a deployment anew. */
  refreshOf(deploymentId: string): Promise<void> {
    const known = this.#idByDeployment.get(deploymentId);
    if (known !== undefined) return this.refresh(known);
    this.#wantedDeployments.add(deploymentId);
    return this.#soon();
  }

  /** Reads anew what is known, and what is to be attended to. */
  async refreshAll(): Promise<void> {
    await this.attend();
    for (const id of this.#views.keys()) this.#wanted.add(id);
    await this.#soon();
  }

  /** Reads those that have to be attended to. */
  async attend(): Promise<readonly EndpointView[]> {
    let views: readonly EndpointView[] = [];
    await this.#after(async () => {
      views = await this.#source.attended();
      for (const view of views) this.#put(view);
    });
    return views;
  }

  #soon(): Promise<void> {
    this.#next ??= this.#after(async () => {
      this.#next = undefined;
      const [ids, deploymentIds] = [this.#wanted, this.#wantedDeployments];
      this.#wanted = new Set();
      this.#wantedDeployments = new Set();
      for (const deploymentId of deploymentIds) {
        const id = await this.#source.endpointOf(deploymentId);
        if (id !== undefined) ids.add(id);
      }
      const views = await this.#source.views([...ids]);
      for (const view of views) {
        ids.delete(view.id);
        this.#put(view);
      }
      for (const id of ids) this.#forget(id);
    });
    return this.#next;
  }

  #after(work: () => Promise<void>): Promise<void> {
    const done = this.#reading.then(work);
    this.#reading = done.catch((error: unknown) =>
      log.warn("endpoints could not be read", { error: messageOf(error) }),
    );
    return done;
  }

  #put(view: EndpointView): void {
    for (const { id } of this.#views.get(view.id)?.deployments ?? []) this.#idByDeployment.delete(id);
    this.#views.set(view.id, view);
    for (const key of keysOf(view)) {
      this.#idByName.set(key, view.id);
      this.#absent.delete(key);
    }
    for (const { id } of view.deployments) this.#idByDeployment.set(id, view.id);
    this.#tell(view.id, view);
  }

  #forget(endpointId: string): void {
    const view = this.#views.get(endpointId);
    if (view === undefined) return;
    this.#views.delete(endpointId);
    for (const key of keysOf(view)) if (this.#idByName.get(key) === endpointId) this.#idByName.delete(key);
    for (const [deploymentId, id] of this.#idByDeployment)
      if (id === endpointId) this.#idByDeployment.delete(deploymentId);
    this.#tell(endpointId, undefined);
  }

  #tell(endpointId: string, view: EndpointView | undefined): void {
    for (const listener of this.#listeners) listener(endpointId, view);
  }
}

function keysOf({ name, workspaceId, workspaceName }: EndpointView): string[] {
  return [keyOf(name, { workspaceId }), keyOf(name, { workspaceName })];
}

function keyOf(name: string, of: RouteOf): string {
  return "workspaceId" in of ? `${name} ${of.workspaceId}` : `${name}.${of.workspaceName}`;
}
