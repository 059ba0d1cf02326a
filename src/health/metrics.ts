import { readdirSync } from "node:fs";
import type { Registry } from "prom-client";
import { livingStates } from "../container/state.ts";
import { version } from "../std/version.ts";
import { healthStates } from "./health.ts";
import type { MetricsSnapshot } from "./metrics-store.ts";

/** A scrape in Prometheus' text format 0.0.4. */
export interface Exposition {
  readonly contentType: string;
  readonly text: string;
}

type Values = readonly (readonly [labels: Readonly<Record<string, string>>, value: number])[];
type AddGauge = (name: string, help: string, values: Values) => void;

const workerStates = ["ready", "lost"];
const seconds = (at: Date): number => at.getTime() / 1000;

/** Names follow Prometheus' conventions: base units, no unit in a label, a series per thing that can be counted. */
export async function renderMetrics(snapshot: MetricsSnapshot): Promise<Exposition> {
  // Loaded with the first scrape: a node that nobody scrapes starts without it.
  const { Registry, Gauge, Counter } = await import("prom-client");
  const registry = new Registry();
  const gauge: AddGauge = (name, help, values) => {
    // Of what has labels there is no series without them.
    if (values.length === 0) return;
    const labelNames = [...new Set(values.flatMap(([labels]) => Object.keys(labels)))];
    const made = new Gauge({ name, help, labelNames, registers: [registry] });
    for (const [labels, value] of values) made.set(labels, value);
  };
  gauge("oci_node_build_info", "1, with the version as its label.", [[{ version }, 1]]);
  addSecrets(gauge, snapshot);
  addCounts(gauge, snapshot);
  if (snapshot.workers !== undefined) {
    addProcess(gauge);
    const cpu = {
      name: "process_cpu_seconds_total",
      help: "User and system CPU time of the gateway's process.",
    };
    const { user, system } = process.cpuUsage();
    new Counter({ ...cpu, registers: [registry] }).inc((user + system) / 1e6);
  }
  return await expositionOf(registry);
}

async function expositionOf(registry: Registry): Promise<Exposition> {
  return { contentType: registry.contentType, text: await registry.metrics() };
}

function addSecrets(gauge: AddGauge, { secrets }: MetricsSnapshot): void {
  const labelled = secrets.map(({ workspace, secret, registry, ...facts }) => ({
    labels: { workspace, secret, registry },
    ...facts,
  }));
  gauge(
    "oci_node_secret_health",
    "1 for the state that a secret's credential is in: ok, expiring, failing or unknown.",
    labelled.map(({ labels, state }) => [{ ...labels, state }, 1]),
  );
  gauge(
    "oci_node_secret_expiry_timestamp_seconds",
    "When a secret's credential ends, where that is known.",
    labelled.flatMap(({ labels, expiresAt }) => (expiresAt === null ? [] : [[labels, seconds(expiresAt)]])),
  );
  gauge(
    "oci_node_secret_last_check_timestamp_seconds",
    "When a secret was last tried at its registry.",
    labelled.flatMap(({ labels, checkedAt }) => (checkedAt === null ? [] : [[labels, seconds(checkedAt)]])),
  );
  gauge(
    "oci_node_secret_push_rights",
    "Whether a secret's credential may push, too, where that is known: more than a container needs.",
    labelled.flatMap(({ labels, rights }) =>
      rights === "unknown" ? [] : [[labels, rights === "push" ? 1 : 0]],
    ),
  );
}

function addCounts(gauge: AddGauge, snapshot: MetricsSnapshot): void {
  const { workspaces, secrets, containers, deliveries, workers } = snapshot;
  const inState = new Map<string, number>();
  for (const { workspace, state } of secrets)
    inState.set(`${workspace} ${state}`, (inState.get(`${workspace} ${state}`) ?? 0) + 1);
  gauge(
    "oci_node_secrets",
    "Secrets by the state of their credentials.",
    workspaces.flatMap((workspace) =>
      healthStates.map((state) => [{ workspace, state }, inState.get(`${workspace} ${state}`) ?? 0] as const),
    ),
  );
  const running = new Map(containers.map(({ workspace, state, count }) => [`${workspace} ${state}`, count]));
  gauge(
    "oci_node_containers",
    "Containers that have not ended, by state.",
    workspaces.flatMap((workspace) =>
      livingStates.map((state) => [{ workspace, state }, running.get(`${workspace} ${state}`) ?? 0] as const),
    ),
  );
  gauge(
    "oci_node_alert_deliveries",
    "Alerts to webhooks that are on their way (pending) or were given up (given_up) in the last 30 days.",
    deliveries.flatMap(({ workspace, pending, givenUp }) => [
      [{ workspace, state: "pending" }, pending] as const,
      [{ workspace, state: "given_up" }, givenUp] as const,
    ]),
  );
  if (workers === undefined) return;
  const counts = new Map(workers.map(({ state, count }) => [state, count]));
  const states = [...new Set([...workerStates, ...counts.keys()])];
  gauge(
    "oci_node_workers",
    "Workers by state.",
    states.map((state) => [{ state }, counts.get(state) ?? 0]),
  );
}

/** Of prom-client's own collectors those that hold on Bun; its `nodejs_` series do not. */
function addProcess(gauge: AddGauge): void {
  const startedS = Date.now() / 1000 - process.uptime();
  gauge("process_start_time_seconds", "When the gateway's process started.", [[{}, startedS]]);
  gauge("process_resident_memory_bytes", "Memory of the gateway's process.", [
    [{}, process.memoryUsage.rss()],
  ]);
  gauge("process_open_fds", "Open files of the gateway's process.", [
    [{}, readdirSync("/proc/self/fd").length],
  ]);
}
