import type { Route } from "./endpoint.ts";

/** Upper bounds of the latency histogram, in seconds. */
const bucketsS: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

interface Ended {
  /** `2xx`, …; `gone`: the client left before there was an answer. */
  readonly status: string;
  readonly seconds: number;
  /** No container was there when it came. */
  readonly cold: boolean;
}

/** What happened to an endpoint's requests at this gateway since it started. */
export interface EndpointCounts {
  readonly workspaceId: string;
  readonly endpoint: string;
  /** The deployment that took requests last. */
  deploymentId: string;
  readonly requests: Map<string, number>;
  /** Requests per bucket of {@link FrontMetrics.bucketsS}, each without those below; the last is for what took longer. */
  readonly buckets: number[];
  seconds: number;
  coldStarts: number;
}

/** Counts in memory; they are put into words at a scrape. */
export class FrontMetrics {
  readonly bucketsS = bucketsS;
  readonly #counts = new Map<string, EndpointCounts>();

  note(route: Route, { status, seconds, cold }: Ended): void {
    const key = route.endpointId;
    let counts = this.#counts.get(key);
    if (counts === undefined) {
      counts = {
        workspaceId: route.workspaceId,
        endpoint: route.endpointName,
        deploymentId: route.deploymentId,
        requests: new Map(),
        buckets: new Array(bucketsS.length + 1).fill(0),
        seconds: 0,
        coldStarts: 0,
      };
      this.#counts.set(key, counts);
    }
    counts.deploymentId = route.deploymentId;
    counts.requests.set(status, (counts.requests.get(status) ?? 0) + 1);
    const place = bucketsS.findIndex((bound) => seconds <= bound);
    const bucket = place < 0 ? bucketsS.length : place;
    counts.buckets[bucket] = (counts.buckets[bucket] ?? 0) + 1;
    counts.seconds += seconds;
    if (cold) counts.coldStarts++;
  }

  /** @param workspaceId undefined: of all */
  read(workspaceId: string | undefined): EndpointCounts[] {
    const all = [...this.#counts.values()];
    return workspaceId === undefined ? all : all.filter((counts) => counts.workspaceId === workspaceId);
  }
}
