import type { Demand, Route } from "./endpoint.ts";

/** Upper bounds of the latency histogram, in seconds. */
const boundsS: readonly number[] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** Endpoints that are remembered: they come and go, and their counts with them. */
const endpointsMax = 10_000;

interface Ended {
  /** `2xx`, …; `gone`: the client left before there was an answer. */
  readonly status: string;
  readonly seconds: number;
  /** No container was there when it came. */
  readonly cold: boolean;
}

interface Counts {
  readonly workspaceId: string;
  readonly endpoint: string;
  /** The deployment that took requests last. */
  deploymentId: string;
  readonly requests: Map<string, number>;
  /** Requests by the first of the bounds that holds them; the last is for what took longer. */
  readonly within: number[];
  seconds: number;
  coldStarts: number;
}

/** What happened to endpoints' requests at this gateway since it started: counted in memory, put into words at a scrape. */
export class FrontMetrics {
  readonly #counts = new Map<string, Counts>();

  note(route: Route, { status, seconds, cold }: Ended): void {
    const counts = this.#of(route);
    counts.deploymentId = route.deploymentId;
    counts.requests.set(status, (counts.requests.get(status) ?? 0) + 1);
    const place = boundsS.findIndex((bound) => seconds <= bound);
    const within = place < 0 ? boundsS.length : place;
    counts.within[within] = (counts.within[within] ?? 0) + 1;
    counts.seconds += seconds;
    if (cold) counts.coldStarts++;
  }

  /**
   * Prometheus' text format 0.0.4; empty where nothing was asked for yet.
   *
   * @param names of workspaces, by id; others are left out
   */
  text(names: ReadonlyMap<string, string>, demandOf: (deploymentId: string) => Demand): string {
    const rows = [...this.#counts.values()].flatMap((counts) => {
      const workspace = names.get(counts.workspaceId);
      if (workspace === undefined) return [];
      return [{ counts, labels: `workspace="${workspace}",endpoint="${counts.endpoint}"` }];
    });
    if (rows.length === 0) return "";
    const name = "oci_node_endpoint";
    const demands = rows.map(({ counts, labels }) => ({ labels, demand: demandOf(counts.deploymentId) }));
    return [
      ...family(`${name}_requests_total`, "counter", "Requests to an endpoint that have ended, by status."),
      ...rows.flatMap(({ counts, labels }) =>
        [...counts.requests].map(
          ([status, count]) => `${name}_requests_total{${labels},status="${status}"} ${count}`,
        ),
      ),
      ...family(`${name}_request_seconds`, "histogram", "From a request's arrival to its answer's end."),
      ...rows.flatMap(({ counts, labels }) => histogram(`${name}_request_seconds`, labels, counts)),
      ...family(`${name}_cold_starts_total`, "counter", "Requests that came when there was no container."),
      ...rows.map(({ counts, labels }) => `${name}_cold_starts_total{${labels}} ${counts.coldStarts}`),
      ...family(`${name}_requests_queued`, "gauge", "Requests that wait for a container."),
      ...demands.map(({ labels, demand }) => `${name}_requests_queued{${labels}} ${demand.queued}`),
      ...family(`${name}_requests_in_flight`, "gauge", "Requests that containers have."),
      ...demands.map(({ labels, demand }) => `${name}_requests_in_flight{${labels}} ${demand.inFlight}`),
      "",
    ].join("\n");
  }

  #of({ endpointId, workspaceId, endpointName, deploymentId }: Route): Counts {
    const known = this.#counts.get(endpointId);
    if (known !== undefined) return known;
    const counts: Counts = {
      workspaceId,
      endpoint: endpointName,
      deploymentId,
      requests: new Map(),
      within: new Array(boundsS.length + 1).fill(0),
      seconds: 0,
      coldStarts: 0,
    };
    // Of a name that was removed and made anew there would be two series.
    for (const [id, other] of this.#counts)
      if (other.workspaceId === workspaceId && other.endpoint === endpointName) this.#counts.delete(id);
    this.#counts.set(endpointId, counts);
    const [oldest] = this.#counts.keys();
    if (this.#counts.size > endpointsMax && oldest !== undefined) this.#counts.delete(oldest);
    return counts;
  }
}

function family(name: string, type: "counter" | "gauge" | "histogram", help: string): string[] {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`];
}

function histogram(name: string, labels: string, { within, seconds }: Counts): string[] {
  let sum = 0;
  const lines = within.map((count, at) => {
    sum += count;
    return `${name}_bucket{${labels},le="${boundsS[at] ?? "+Inf"}"} ${sum}`;
  });
  return [...lines, `${name}_sum{${labels}} ${seconds}`, `${name}_count{${labels}} ${sum}`];
}
