import type { ContainerChanges } from "./changes.ts";
import type { EventFilter, HousekeepingStore, NamedEvent } from "./housekeeping-store.ts";
import { isEnded } from "./state.ts";
import type { ContainerStore } from "./store.ts";

const pageEvents = 500;
/** What is looked at again when a change may have been missed: more than the longest transaction and the looks between. */
const lookBackMs = 120_000;

export interface EventDependencies {
  readonly containers: Pick<ContainerStore, "find">;
  readonly changes: ContainerChanges;
  readonly housekeeping: Pick<HousekeepingStore, "events" | "changed">;
}

/**
 * What happened to a workspace's containers, oldest first, and what happens from now on where that is followed: until the
 * signal aborts, or the one container that was named has ended.
 *
 * Of one container each event comes once and in order. Those of several may come a little out of the order of their ids:
 * who took a lower one may commit later, and is not missed.
 */
export async function* eventsOf(
  { containers, changes, housekeeping }: EventDependencies,
  { follow, ...filter }: EventFilter & { readonly follow: boolean },
  signal: AbortSignal,
): AsyncGenerator<NamedEvent> {
  const { workspaceId, containerId } = filter;
  /** The last that was told, by container: within one, ids are in the order in which they were written. */
  const told = new Map<string, number>();
  async function* after(which: EventFilter, id: number): AsyncGenerator<NamedEvent> {
    for (let last = id; !signal.aborted; ) {
      const page = await housekeeping.events(which, last, pageEvents);
      for (const event of page) {
        last = event.id;
        if (event.id <= (told.get(event.containerId) ?? 0)) continue;
        told.set(event.containerId, event.id);
        yield event;
      }
      if (page.length < pageEvents) return;
    }
  }
  const hasEnded = async () => {
    const container = containerId === undefined ? undefined : await containers.find(containerId);
    return containerId !== undefined && (container === undefined || isEnded(container.state));
  };

  if (!follow) {
    yield* after(filter, 0);
    return;
  }
  let first = true;
  for await (const changed of changes.within(workspaceId, signal)) {
    // Seen before the events are read: then there is none that comes after them.
    const last = await hasEnded();
    if (first) yield* after(filter, 0);
    else {
      const ids = changed ?? (await housekeeping.changed(filter, lookBackMs));
      for (const id of ids) {
        if (containerId !== undefined && id !== containerId) continue;
        yield* after({ ...filter, containerId: id }, told.get(id) ?? 0);
      }
    }
    first = false;
    if (last) return;
  }
}
