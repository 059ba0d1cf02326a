import { expect, test } from "bun:test";
import type { Route, Target } from "./endpoint.ts";
import { FixedRouting, spec } from "./front.test-kit.ts";
import { Dispatcher, Moved, type Slot } from "./queue.ts";

const target = (containerId: string): Target => ({
  containerId,
  worker: { id: "w", address: "https://w", bootNonce: "b" },
});

function route(
  deploymentId: string,
  targets: readonly string[],
  more: Parameters<typeof spec>[0] = {},
): Route {
  return {
    endpointId: "e",
    endpointName: "hello",
    workspaceId: "w",
    deploymentId,
    spec: spec(more),
    targets: targets.map(target),
    problem: undefined,
  };
}

const never = new AbortController().signal;
const settled = () => new Promise((resolve) => setImmediate(resolve));

test("the container with the fewest requests is taken, at once while there is room", async () => {
  const routing = new FixedRouting();
  const dispatcher = new Dispatcher(routing);
  const now = route("d-1", ["a", "b"], { concurrency: 2 });
  routing.set(now);
  const slots = [1, 2, 3, 4].map(() => dispatcher.take(now, never) as Slot);
  expect(slots.map((slot) => slot.target.containerId).toSorted()).toEqual(["a", "a", "b", "b"]);
  expect(dispatcher.take(now, never)).toBeInstanceOf(Promise);
  expect(routing.demands.at(-1)).toMatchObject({ queued: 1, inFlight: 4 });
});

test("one that did not take a request is left alone for a moment; the request goes before those that came later", async () => {
  const routing = new FixedRouting();
  const dispatcher = new Dispatcher(routing);
  const now = route("d-1", ["a"], { concurrency: 1, queueMax: 1 });
  routing.set(now);
  const first = dispatcher.take(now, never) as Slot;
  const order: string[] = [];
  const later = (dispatcher.take(now, never) as Promise<Slot>).then((slot) => {
    order.push("later");
    return slot;
  });
  first.refused("busy");
  const again = (dispatcher.take(now, never, true) as Promise<Slot>).then((slot) => {
    order.push("again");
    return slot;
  });
  (await again).release();
  (await later).release();
  expect(order).toEqual(["again", "later"]);
  expect(dispatcher.demand("d-1")).toEqual({ queued: 0, inFlight: 0 });
});

test("whatever happens, nobody is forgotten, passed over or sent where there is no room", async () => {
  for (let seed = 1; seed <= 60; seed++) await simulate(seed);
});

async function simulate(seed: number): Promise<void> {
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const concurrency = 1 + random(3);
  const routing = new FixedRouting();
  const dispatcher = new Dispatcher(routing);
  const names = ["a", "b", "c"];
  const set = (targets: readonly string[]) =>
    routing.set(route("d-1", targets, { concurrency, queueMax: 1000 }));
  set([]);
  const held: Slot[] = [];
  const served: number[] = [];
  const gone = new Set<number>();
  const leaving: { readonly number: number; readonly abort: AbortController }[] = [];
  let asked = 0;
  const hold = (slot: Slot, number: number): void => {
    held.push(slot);
    served.push(number);
    const load = held.filter((other) => other.target.containerId === slot.target.containerId).length;
    if (load > concurrency) throw new Error(`${load} requests at once in a container, seed ${seed}`);
  };
  for (let step = 0; step < 200; step++) {
    const what = random(10);
    if (what < 5) {
      const number = asked++;
      const abort = new AbortController();
      const current = routing.current("d-1") as Route;
      const taken = dispatcher.take(current, abort.signal);
      if (taken instanceof Promise) {
        leaving.push({ number, abort });
        void taken.then(
          (slot) => hold(slot, number),
          () => gone.add(number),
        );
      } else hold(taken, number);
    } else if (what < 8) held.splice(random(held.length), 1)[0]?.release();
    else if (what === 8) leaving.splice(random(leaving.length), 1)[0]?.abort.abort(new Error("left"));
    else set(names.filter(() => random(2) === 0));
    await settled();
  }
  set(names);
  for (let round = 0; served.length + gone.size < asked; round++) {
    if (round > 1000)
      throw new Error(`${asked - served.length - gone.size} requests wait forever, seed ${seed}`);
    for (const slot of held.splice(0)) slot.release();
    await settled();
  }
  for (const slot of held.splice(0)) slot.release();
  expect(served).toEqual(served.toSorted((a, b) => a - b));
  expect(dispatcher.demand("d-1")).toEqual({ queued: 0, inFlight: 0 });
  expect(routing.demands.at(-1)).toMatchObject({ queued: 0, inFlight: 0 });
  routing.remove("d-1");
  expect(() => dispatcher.take(route("d-1", names), never)).toThrow(Moved);
}
