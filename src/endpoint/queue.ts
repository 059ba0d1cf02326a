import type { Refusal } from "../runtime/requests/forwarder.ts";
import type { Route, Routing, Target } from "./endpoint.ts";
import { Refused } from "./refused.ts";

/** How long a container that did not take a request is left alone; those that drain or are gone leave the route meanwhile. */
const avoidedMs: Readonly<Record<Refusal, number>> = {
  busy: 20,
  unreachable: 200,
  draining: 5_000,
  absent: 1_000,
};

/** A container for one request. */
export interface Slot {
  readonly target: Target;
  /** The request is over. */
  release(): void;
  /** The container has nothing of it, and is to be left alone for a moment. */
  refused(why: Refusal): void;
}

interface Waiter {
  readonly give: (slot: Slot) => void;
  readonly fail: (error: unknown) => void;
}

/** The deployment takes no requests any more: another one may. */
export class Moved extends Error {
  override readonly name = "Moved";
}

/** Requests of all deployments on their way to containers: each waits, in the order in which they came, for one with room. */
export class Dispatcher {
  readonly #routing: Routing;
  readonly #queues = new Map<string, Queue>();
  readonly #unsubscribe: () => void;

  constructor(routing: Routing) {
    this.#routing = routing;
    this.#unsubscribe = routing.onChange((id) => this.#queues.get(id)?.changed());
  }

  /**
   * A container with room: at once, or when there is one.
   *
   * @param again the request had one, that did not take it: it goes before those that came later, however many wait
   * @throws Refused `queue_full`, `not_starting`; Moved; the signal's reason
   */
  take(route: Route, signal: AbortSignal, again = false): Slot | Promise<Slot> {
    const id = route.deploymentId;
    let queue = this.#queues.get(id);
    if (queue === undefined) {
      queue = new Queue(this.#routing, id, () => this.#queues.delete(id));
      this.#queues.set(id, queue);
    }
    return queue.take(route, signal, again);
  }

  /** What there is of a deployment. */
  demand(deploymentId: string): { readonly queued: number; readonly inFlight: number } {
    return this.#queues.get(deploymentId)?.demand ?? { queued: 0, inFlight: 0 };
  }

  close(): void {
    this.#unsubscribe();
    for (const queue of this.#queues.values()) queue.close();
  }
}

/** The requests of one deployment. Forgotten when it has none. */
class Queue {
  readonly #routing: Routing;
  readonly #id: string;
  readonly #forget: () => void;
  /** In the order in which they came; and those before them all, which had a container that did not take them. */
  readonly #waiting = new Set<Waiter>();
  readonly #again = new Set<Waiter>();
  #inFlight = 0;
  /** Requests by container. */
  readonly #load = new Map<string, number>();
  /** Containers that are left alone, and until when. */
  readonly #avoided = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(routing: Routing, id: string, forget: () => void) {
    this.#routing = routing;
    this.#id = id;
    this.#forget = forget;
  }

  get demand(): { readonly queued: number; readonly inFlight: number } {
    return { queued: this.#queued, inFlight: this.#inFlight };
  }

  get #queued(): number {
    return this.#waiting.size + this.#again.size;
  }

  take(route: Route, signal: AbortSignal, again: boolean): Slot | Promise<Slot> {
    const current = this.#routing.current(this.#id);
    if (current === undefined) {
      this.#settle();
      throw new Moved();
    }
    if (this.#queued === 0) {
      const target = this.#pick(current);
      if (target !== undefined) return this.#slot(target);
    }
    const { queueMax } = route.spec;
    if (!again && this.#queued >= queueMax) {
      throw new Refused("queue_full", `${queueMax} requests wait for this endpoint already`, {
        next: "Try again, or deploy it with a longer queue, more containers or more requests per container.",
        headers: { "retry-after": "1" },
      });
    }
    return this.#wait(signal, again);
  }

  /** The route has changed. */
  changed(): void {
    const route = this.#routing.current(this.#id);
    if (route === undefined) this.#failAll(new Moved());
    else this.#serve(route);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#failAll(
      new Refused("unavailable", "this gateway is shutting down", { headers: { "retry-after": "1" } }),
    );
  }

  #wait(signal: AbortSignal, again: boolean): Promise<Slot> {
    const line = again ? this.#again : this.#waiting;
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        line.delete(waiter);
        reject(signal.reason);
        this.#settle();
      };
      const waiter: Waiter = {
        give: (slot) => {
          signal.removeEventListener("abort", leave);
          resolve(slot);
        },
        fail: (error) => {
          signal.removeEventListener("abort", leave);
          reject(error);
        },
      };
      if (signal.aborted) {
        leave();
        return;
      }
      signal.addEventListener("abort", leave, { once: true });
      line.add(waiter);
      this.#tell();
      const route = this.#routing.current(this.#id);
      if (route !== undefined) this.#serve(route);
    });
  }

  #serve(route: Route): void {
    if (route.problem !== undefined && route.targets.length === 0) {
      this.#failAll(notStarting(route.problem));
      return;
    }
    while (this.#queued > 0) {
      const target = this.#pick(route);
      if (target === undefined) break;
      const line = this.#again.size > 0 ? this.#again : this.#waiting;
      const [next] = line;
      if (next !== undefined) line.delete(next);
      next?.give(this.#slot(target));
    }
    if (this.#queued > 0) this.#lookAgain(route);
  }

  /** The container with the fewest requests that has room for one. */
  #pick(route: Route): Target | undefined {
    const { concurrency } = route.spec;
    let best: Target | undefined;
    let least = concurrency;
    for (const target of route.targets) {
      const load = this.#load.get(target.containerId) ?? 0;
      if (load < least && !this.#isAvoided(target.containerId)) {
        best = target;
        least = load;
      }
    }
    return best;
  }

  #isAvoided(containerId: string): boolean {
    if (this.#avoided.size === 0) return false;
    const until = this.#avoided.get(containerId);
    if (until === undefined) return false;
    if (until > performance.now()) return true;
    this.#avoided.delete(containerId);
    return false;
  }

  /** Once the first of the containers that are left alone may be tried again. */
  #lookAgain(route: Route): void {
    const there = route.targets.map(({ containerId }) => this.#avoided.get(containerId));
    const first = Math.min(...there.map((until) => until ?? Number.POSITIVE_INFINITY));
    if (!Number.isFinite(first)) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.changed(), Math.max(1, first - performance.now()));
  }

  #slot(target: Target): Slot {
    const id = target.containerId;
    this.#load.set(id, (this.#load.get(id) ?? 0) + 1);
    this.#inFlight++;
    this.#tell();
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      const left = (this.#load.get(id) ?? 1) - 1;
      if (left === 0) this.#load.delete(id);
      else this.#load.set(id, left);
      this.#inFlight--;
      if (this.#queued > 0) this.changed();
      this.#settle();
    };
    return {
      target,
      release: end,
      refused: (why) => {
        this.#avoided.set(id, performance.now() + avoidedMs[why]);
        end();
      },
    };
  }

  #failAll(error: unknown): void {
    const all = [...this.#again, ...this.#waiting];
    this.#again.clear();
    this.#waiting.clear();
    for (const waiter of all) waiter.fail(error);
    this.#settle();
  }

  #tell(): void {
    this.#routing.demand(this.#id, this.demand);
  }

  #settle(): void {
    this.#tell();
    if (this.#queued > 0 || this.#inFlight > 0) return;
    // A container that refused is known until it is tried again.
    if (this.#avoided.size > 0 && this.#routing.current(this.#id) !== undefined) return;
    clearTimeout(this.#timer);
    this.#forget();
  }
}

function notStarting(problem: string): Refused {
  return new Refused("not_starting", `the endpoint's containers do not come up: ${problem}`, {
    next: "See what they wrote: `oci-node endpoint logs`.",
  });
}
