import type { Demand, EndpointSpec } from "./endpoint.ts";

type Sizes = Pick<EndpointSpec, "concurrency" | "containersMin" | "containersMax">;

/** How many containers there should be for what there is to do. */
export function needed({ queued, inFlight }: Demand, spec: Sizes): number {
  const busy = Math.ceil((queued + inFlight) / spec.concurrency);
  return Math.min(spec.containersMax, Math.max(spec.containersMin, busy));
}

export interface Scaled {
  /** Containers to be made now. */
  readonly create: number;
  /** Those that are to end, by id. */
  readonly retire: readonly string[];
}

export interface ScalingInput {
  readonly spec: Sizes & Pick<EndpointSpec, "keepWarmMs">;
  readonly demand: Demand;
  /** Those that are kept. */
  readonly living: readonly { readonly id: string; readonly createdAt: Date; readonly ready: boolean }[];
  /** When a request was last waiting or under way. */
  readonly lastUsedAt: Date;
  /** The most that was needed within the last `keepWarmMs`, and for how long that has been watched. */
  readonly peak: { readonly needed: number; readonly watchedMs: number };
  /** No other one before then. */
  readonly pausedUntil: Date | undefined;
  readonly now: Date;
}

/**
 * Up at once, down late: more than there are is made now, less is let go only when for `keepWarmMs` no more was needed, the
 * latest made first, and none that was made within that time. So a load that comes and goes within that time makes and ends
 * nothing.
 */
export function scale(input: ScalingInput): Scaled {
  const { spec, living, now } = input;
  const want = needed(input.demand, spec);
  if (want > living.length) {
    const paused = input.pausedUntil !== undefined && input.pausedUntil > now;
    return { create: paused ? 0 : want - living.length, retire: [] };
  }
  const keep = Math.max(want, keptWarm(input));
  const old = living.filter(({ createdAt }) => now.getTime() - createdAt.getTime() >= spec.keepWarmMs);
  // Those that do not answer yet go before those that do.
  const order = old.toSorted(
    (a, b) => Number(a.ready) - Number(b.ready) || b.createdAt.getTime() - a.createdAt.getTime(),
  );
  return { create: 0, retire: order.slice(0, Math.max(0, living.length - keep)).map(({ id }) => id) };
}

function keptWarm({ spec, living, lastUsedAt, peak, now }: ScalingInput): number {
  if (now.getTime() - lastUsedAt.getTime() >= spec.keepWarmMs) return 0;
  // A gateway that has just begun does not know what was needed before.
  if (peak.watchedMs < spec.keepWarmMs) return living.length;
  return Math.max(1, peak.needed);
}

/** What was needed of deployments, for as long as they keep containers warm. Kept by each gateway for itself. */
export class Needs {
  readonly #seen = new Map<
    string,
    { readonly since: number; readonly falling: { at: number; needed: number }[] }
  >();

  /** @param at milliseconds of a clock that only goes on */
  observe(deploymentId: string, needed: number, windowMs: number, at: number): void {
    const seen = this.#seen.get(deploymentId) ?? { since: at, falling: [] };
    this.#seen.set(deploymentId, seen);
    const { falling } = seen;
    let since = at;
    while ((falling.at(-1)?.needed ?? Number.POSITIVE_INFINITY) < needed) since = falling.pop()?.at ?? at;
    if (falling.at(-1)?.needed !== needed) falling.push({ at: since, needed });
    // Each held until the next began.
    while ((falling[1]?.at ?? Number.POSITIVE_INFINITY) <= at - windowMs) falling.shift();
  }

  peak(deploymentId: string, at: number): ScalingInput["peak"] {
    const seen = this.#seen.get(deploymentId);
    if (seen === undefined) return { needed: 0, watchedMs: 0 };
    return { needed: seen.falling[0]?.needed ?? 0, watchedMs: at - seen.since };
  }

  /** Forgets all but these. */
  keepOnly(deploymentIds: ReadonlySet<string>): void {
    for (const id of this.#seen.keys()) if (!deploymentIds.has(id)) this.#seen.delete(id);
  }
}
