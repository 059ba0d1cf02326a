import { and, asc, desc, eq, gt, notInArray } from "drizzle-orm";
import { type Database, notify, type Queries, type Subscription } from "../db/database.ts";
import { containerEvents, containers, endedContainerStates, images } from "../db/schema.ts";
import {
  type Container,
  type ContainerEvent,
  type ContainerSpec,
  type NewContainer,
  newContainerId,
} from "./container.ts";
import { ContainerError } from "./error.ts";
import { toContainer, toContainerEvent } from "./row-store.ts";
import { checkSpec } from "./spec.ts";
import type { ContainerState } from "./state.ts";
import {
  assertExpected,
  type Expectation,
  lockContainer,
  type Observation,
  observeIn,
  type Step,
  type Transitioned,
  transitionIn,
  unknownContainer,
} from "./transition-store.ts";

/** The rows of containers and their events. Every write tells the watchers once it is committed. */
export class ContainerStore {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /**
   * Queues a container (`pending`) and wakes the schedulers. Throws ContainerError `image_not_found`,
   * `image_not_ready`, `name_taken` or `bad_spec`. The image cannot be removed meanwhile.
   */
  async create(wanted: NewContainer): Promise<Container> {
    checkSpec(wanted);
    return this.#database.transaction((tx) => createIn(tx, wanted));
  }

  /** As {@link create}, in a transaction of the caller's, who has checked the specification. */
  async createIn(tx: Queries, wanted: NewContainer): Promise<Container> {
    return createIn(tx, wanted);
  }

  /** A container of a workspace. Throws ContainerError `not_found`. */
  async get(workspaceId: string, id: string): Promise<Container> {
    const container = await this.find(id);
    if (container?.workspaceId !== workspaceId) throw unknownContainer(id);
    return container;
  }

  /** A container of any workspace: for the scheduler and for workers' reports, never for a user's request. */
  async find(id: string): Promise<Container | undefined> {
    const [row] = await this.#database.query((db) =>
      db.select().from(containers).where(eq(containers.id, id)),
    );
    return row === undefined ? undefined : toContainer(row);
  }

  /** The container of a workspace that has a name. */
  async named(workspaceId: string, name: string): Promise<Container | undefined> {
    const [row] = await this.#database.query((db) =>
      db
        .select()
        .from(containers)
        .where(and(eq(containers.workspaceId, workspaceId), eq(containers.name, name))),
    );
    return row === undefined ? undefined : toContainer(row);
  }

  /** The workspace's containers, latest first; the ended ones only with `all`. */
  async list(workspaceId: string, options: { all?: boolean; limit?: number } = {}): Promise<Container[]> {
    const living = options.all === true ? [] : [notInArray(containers.state, endedContainerStates)];
    const rows = await this.#database.query((db) =>
      db
        .select()
        .from(containers)
        .where(and(eq(containers.workspaceId, workspaceId), ...living))
        .orderBy(desc(containers.createdAt), asc(containers.id))
        .limit(options.limit ?? 1000),
    );
    return rows.map(toContainer);
  }

  /**
   * Moves a container to a state, with an event, a phase of the state's name, and what the step brings, all or nothing.
   * Repeating a step changes nothing. Back to `pending` counts the attempt up and forgets the worker.
   *
   * Throws ContainerError `not_found`; `stale_attempt` when attempt or worker are not the expected ones; `conflict` when
   * it is in none of the expected states; `illegal_transition`.
   */
  async transition(
    id: string,
    expected: Expectation,
    to: ContainerState,
    step: Step = {},
  ): Promise<Transitioned> {
    return this.#database.transaction((tx) => transitionIn(tx, id, expected, to, step));
  }

  /** Adds events, phases (the first time of each stays) and the latest transfer. Throws as {@link transition}. */
  async observe(id: string, expected: Expectation, seen: Observation): Promise<Container> {
    return this.#database.transaction(async (tx) => {
      const row = await lockContainer(tx, id);
      assertExpected(row, expected);
      return observeIn(tx, row, seen);
    });
  }

  /** Events in order, those after an id only if one is given. */
  async events(id: string, afterId = 0): Promise<ContainerEvent[]> {
    const rows = await this.#database.query((db) =>
      db
        .select()
        .from(containerEvents)
        .where(and(eq(containerEvents.containerId, id), gt(containerEvents.id, afterId)))
        .orderBy(asc(containerEvents.id)),
    );
    return rows.map(toContainerEvent);
  }

  /**
   * Calls back with the id of each container that changes, in any workspace; `onGap` at first and whenever messages may
   * have been missed: look at everything again then.
   */
  async subscribe(
    onChange: (id: string, workspaceId: string, deploymentId: string | undefined) => void,
    onGap: () => void,
  ): Promise<Subscription> {
    return this.#database.listen(
      "container_changed",
      (payload) => {
        const [workspaceId = "", id = "", deploymentId] = payload.split(" ");
        onChange(id, workspaceId, deploymentId);
      },
      onGap,
    );
  }
}

async function lockReadyImage(tx: Queries, workspaceId: string, imageId: string): Promise<void> {
  const [image] = await tx
    .select({ status: images.status })
    .from(images)
    .where(and(eq(images.id, imageId), eq(images.workspaceId, workspaceId)))
    .for("key share");
  if (image === undefined) {
    throw new ContainerError("image_not_found", `no image ${imageId} in this workspace`, {
      next: "Build it with `oci-node image build`.",
    });
  }
  if (image.status !== "ready") {
    throw new ContainerError("image_not_ready", `image ${imageId} is ${image.status}`, {
      next: "Wait for its build, or build it again.",
    });
  }
}

async function createIn(tx: Queries, wanted: NewContainer): Promise<Container> {
  const { workspaceId, imageId, reference, cpuMillis, memoryBytes, name, deploymentId } = wanted;
  const { command, env, network, eager, options, handler, serving } = wanted;
  const spec: ContainerSpec = { command, env, network, eager, options, handler, serving };
  const id = newContainerId();
  await lockReadyImage(tx, workspaceId, imageId);
  const phases = { pending: new Date().toISOString() };
  const [row] = await tx
    .insert(containers)
    .values({
      id,
      workspaceId,
      imageId,
      reference,
      name,
      deploymentId,
      state: "pending",
      spec,
      cpuMillis,
      memoryBytes,
      phases,
    })
    // Alone the name can be there already: of two that ask for it at once, the second waits and is told.
    .onConflictDoNothing({ target: [containers.workspaceId, containers.name] })
    .returning();
  if (row === undefined) throw await nameTaken(tx, workspaceId, name ?? "");
  const events = [{ kind: "state", message: "pending", fields: { to: "pending" } }];
  const [container] = await Promise.all([
    observeIn(tx, row, { events }),
    notify(tx, "container_pending", id),
  ]);
  return container;
}

async function nameTaken(tx: Queries, workspaceId: string, name: string): Promise<ContainerError> {
  const [holder] = await tx
    .select({ id: containers.id, state: containers.state })
    .from(containers)
    .where(and(eq(containers.workspaceId, workspaceId), eq(containers.name, name)));
  const which =
    holder === undefined ? "another container" : `container ${holder.id}, which is ${holder.state},`;
  return new ContainerError("name_taken", `${which} has the name ${name} already`, {
    next: `Choose another name, or remove that one: oci-node rm ${name}`,
  });
}
