import { and, desc, eq, lte, sql } from "drizzle-orm";
import { notify, type Queries } from "../db/database.ts";
import { containerEvents, containers } from "../db/schema.ts";
import type { Container, ImageTransfer, NewContainerEvent, Phases } from "./container.ts";
import { ContainerError } from "./error.ts";
import { type ImageCredential, imageCredentialToJson } from "./image-credential.ts";
import type { PublishedPort } from "./options.ts";
import { type ContainerRow, toContainer } from "./row-store.ts";
import { assertTransition, type ContainerState, isEnded, parseContainerState } from "./state.ts";

/** What the caller takes the container to be; a field that is absent is not looked at. */
export interface Expectation {
  readonly from?: readonly ContainerState[] | undefined;
  readonly attempt?: number | undefined;
  readonly workerId?: string | undefined;
}

/** What was seen of a container beside its state. */
export interface Observation {
  readonly phases?: Phases | undefined;
  readonly events?: readonly NewContainerEvent[] | undefined;
  readonly transfer?: ImageTransfer | undefined;
  readonly imageCredential?: ImageCredential | undefined;
  /** Its own IP address. */
  readonly address?: string | undefined;
  /** With the host's ports that were taken. */
  readonly ports?: readonly PublishedPort[] | undefined;
  readonly restarts?: number | undefined;
}

/** What a step writes beside the state. */
export interface Step extends Observation {
  /** When it happened; now when absent. */
  readonly at?: Date | undefined;
  readonly workerId?: string | undefined;
  /** To `scheduled`: how long the hand-over may take until another scheduler may take it up. */
  readonly leaseMs?: number | undefined;
  readonly exitCode?: number | undefined;
  readonly signal?: string | undefined;
  readonly oomKilled?: boolean | undefined;
  readonly reason?: string | undefined;
}

export interface Transitioned {
  readonly container: Container;
  /** False: it was in that state already (a repeat), and nothing but new events and phases was written. */
  readonly changed: boolean;
}

const messageCharacters = 4000;
/** Kinds of events that a container which lives for years may have without end, and how many of each are kept. */
const recurring: ReadonlySet<string> = new Set(["restart", "image"]);
const recurringMax = 200;

/** One step inside a transaction; see `ContainerStore.transition`. */
export async function transitionIn(
  tx: Queries,
  id: string,
  expected: Expectation,
  to: ContainerState,
  step: Step,
): Promise<Transitioned> {
  const row = await lockContainer(tx, id);
  assertExpected(row, expected);
  const from = parseContainerState(row.state);
  if (from === to) return { container: await observeIn(tx, row, step), changed: false };
  if (expected.from !== undefined && !expected.from.includes(from)) {
    throw new ContainerError("conflict", `container ${id} is ${from}, not ${expected.from.join(" or ")}`);
  }
  assertTransition(from, to);
  const at = step.at ?? new Date();
  const moved = await writeStep(tx, row, to, at, step);
  const fields = {
    from,
    to,
    attempt: String(moved.attempt),
    ...(step.workerId ? { worker: step.workerId } : {}),
  };
  const message = step.reason === undefined ? `${from} → ${to}` : `${from} → ${to}: ${step.reason}`;
  const events = [...(step.events ?? []), { at, kind: "state", message, fields }];
  const container = await observeIn(tx, moved, { ...step, events });
  if (to === "pending") await notify(tx, "container_pending", id);
  return { container, changed: true };
}

/** Writes phases, events (a repeated one once) and transfer, and tells the watchers. The row must be locked. */
export async function observeIn(tx: Queries, row: ContainerRow, seen: Observation): Promise<Container> {
  const names = Object.fromEntries(
    Object.entries(seen.phases ?? {}).map(([name, at]) => [name, at.toISOString()]),
  );
  // One after another on the transaction's connection, but none waits for the answer to the one before.
  const update = tx
    .update(containers)
    .set({
      phases: { ...names, ...(row.phases as Record<string, string>) },
      ...(seen.transfer === undefined ? {} : { transfer: seen.transfer }),
      ...(seen.imageCredential === undefined
        ? {}
        : { imageCredential: imageCredentialToJson(seen.imageCredential) }),
      ...(seen.address === undefined ? {} : { address: seen.address }),
      ...(seen.ports === undefined ? {} : { ports: seen.ports }),
      ...(seen.restarts === undefined ? {} : { restarts: seen.restarts }),
      ...(seen.phases?.["ready"] === undefined ? {} : { readyAt: seen.phases["ready"] }),
      updatedAt: sql`now()`,
    })
    .where(eq(containers.id, row.id))
    .returning();
  const changed = [row.workspaceId, row.id, row.deploymentId ?? ""].join(" ").trimEnd();
  const [[written]] = await Promise.all([
    update,
    notify(tx, "container_changed", changed),
    appendEvents(tx, row, seen.events ?? []),
  ]);
  return toContainer(written ?? row);
}

/** The row, locked until the transaction ends. Throws ContainerError `not_found`. */
export async function lockContainer(tx: Queries, id: string): Promise<ContainerRow> {
  const [row] = await tx.select().from(containers).where(eq(containers.id, id)).for("update");
  if (row === undefined) throw unknownContainer(id);
  return row;
}

/** Throws ContainerError `stale_attempt` when another attempt or another worker has the container by now. */
export function assertExpected(row: ContainerRow, expected: Expectation): void {
  const staleAttempt = expected.attempt !== undefined && expected.attempt !== row.attempt;
  const staleWorker = expected.workerId !== undefined && expected.workerId !== row.workerId;
  if (!staleAttempt && !staleWorker) return;
  throw new ContainerError(
    "stale_attempt",
    `container ${row.id} is at attempt ${row.attempt} on ${row.workerId ?? "no worker"} by now`,
  );
}

export function unknownContainer(id: string): ContainerError {
  return new ContainerError("not_found", `no container ${id} in this workspace`, {
    next: "See `oci-node ps`.",
  });
}

async function writeStep(
  tx: Queries,
  row: ContainerRow,
  to: ContainerState,
  at: Date,
  step: Step,
): Promise<ContainerRow> {
  const again = to === "pending";
  const phases = again ? {} : { ...(row.phases as Record<string, string>), [to]: at.toISOString() };
  const lease = to === "scheduled" && step.leaseMs !== undefined;
  const [moved] = await tx
    .update(containers)
    .set({
      state: to,
      phases,
      ...(again
        ? {
            attempt: row.attempt + 1,
            workerId: null,
            transfer: null,
            imageCredential: null,
            address: null,
            ports: [],
            readyAt: null,
          }
        : {}),
      ...(step.workerId === undefined ? {} : { workerId: step.workerId }),
      ...(to === "running" ? { startedAt: at } : {}),
      ...(isEnded(to) ? { finishedAt: at } : {}),
      ...(step.exitCode === undefined ? {} : { exitCode: step.exitCode }),
      ...(step.signal === undefined ? {} : { signal: step.signal }),
      ...(step.oomKilled === undefined ? {} : { oomKilled: step.oomKilled }),
      ...(step.reason === undefined ? {} : { reason: plain(step.reason) }),
      ...(lease ? {} : { claimedBy: null }),
      leaseUntil: lease ? sql`now() + ${step.leaseMs} * interval '1 millisecond'` : null,
    })
    .where(eq(containers.id, row.id))
    .returning();
  if (moved === undefined) throw unknownContainer(row.id);
  return moved;
}

async function appendEvents(
  tx: Queries,
  row: ContainerRow,
  events: readonly NewContainerEvent[],
): Promise<void> {
  for (const event of events) await appendEvent(tx, row, event);
}

async function appendEvent(tx: Queries, row: ContainerRow, event: NewContainerEvent): Promise<void> {
  const { at, kind, fields } = event;
  const message = plain(event.message);
  if (at !== undefined) {
    const same = await tx
      .select({ id: containerEvents.id })
      .from(containerEvents)
      .where(
        and(
          eq(containerEvents.containerId, row.id),
          eq(containerEvents.at, at),
          eq(containerEvents.kind, kind),
          eq(containerEvents.message, message),
        ),
      )
      .limit(1);
    if (same.length > 0) return;
  }
  const clean = Object.fromEntries(
    Object.entries(fields ?? {}).map(([name, value]) => [plain(name), plain(value)]),
  );
  const { id: containerId, workspaceId } = row;
  await tx
    .insert(containerEvents)
    .values({ containerId, workspaceId, at: at ?? new Date(), kind, message, fields: clean });
  if (recurring.has(kind)) await dropOldest(tx, containerId, kind);
}

/** Leaves the latest events of a kind. */
async function dropOldest(tx: Queries, containerId: string, kind: string): Promise<void> {
  const ofKind = and(eq(containerEvents.containerId, containerId), eq(containerEvents.kind, kind));
  const [first] = await tx
    .select({ id: containerEvents.id })
    .from(containerEvents)
    .where(ofKind)
    .orderBy(desc(containerEvents.id))
    .offset(recurringMax)
    .limit(1);
  if (first !== undefined)
    await tx.delete(containerEvents).where(and(ofKind, lte(containerEvents.id, first.id)));
}

/** PostgreSQL's text holds no NUL; what a runtime printed may. */
function plain(text: string): string {
  return text.replaceAll("\0", "�").slice(0, messageCharacters);
}
