import { dirname, join } from "node:path";
import { logger } from "../std/log.ts";
import { Cgroups } from "./cgroups.ts";
import { ExitWatch } from "./exit-watch.ts";
import { IdRanges } from "./files/user-namespace.ts";
import { Volumes } from "./files/volumes.ts";
import type { Host } from "./host.ts";
import { containerPaths, statePaths } from "./layout.ts";
import { PrivateNetworks } from "./network/network.ts";
import type { NetworkSettings } from "./network/settings.ts";
import { findProgram, OciRuntime } from "./oci-runtime.ts";
import { DirectoryWatch } from "./output/directory-watch.ts";
import { bootId } from "./process-identity.ts";
import { Runtime } from "./runtime.ts";
import type { ContainerSpec } from "./spec.ts";
import { startSteps } from "./start-steps.ts";
import { writeState } from "./state.ts";

// Starts the container of the spec on standard input as far as it is told to, and dies without a word:
// `line` its first line of output is there; `created` its process waits to be started; `recorded` and that is recorded.

const [stateDir = "", cgroupParent = "", until = "", settings = ""] = process.argv.slice(2);
const network = JSON.parse(settings) as NetworkSettings;
const spec = (await Bun.stdin.json()) as ContainerSpec;
const signal = new AbortController().signal;
const runtime = await Runtime.create({
  stateDir,
  runtime: "runc",
  cgroupParent,
  network,
  logger: logger("runtime"),
});
if (until === "line") {
  await runtime.start(spec, signal);
  for await (const _ of runtime.logs(spec.id, { follow: true })) break;
} else {
  await startHalf(until === "recorded");
}
process.kill(process.pid, "SIGKILL");

async function startHalf(recorded: boolean): Promise<void> {
  const paths = statePaths(stateDir);
  const host: Host = {
    paths,
    oci: new OciRuntime("runc", findProgram("runc"), paths.runtimeRoot),
    monitorProgram: findProgram("conmon"),
    cgroups: await Cgroups.detect(),
    cgroupParent,
    networks: new PrivateNetworks({
      settings: network,
      stateDir,
      marker: join(dirname(paths.exits), "firewall"),
      logger: logger("runtime"),
    }),
    exits: new ExitWatch(paths.exits),
    logWatch: new DirectoryWatch(paths.logs),
    logSizeMaxBytes: 1_000_000,
    logger: logger("runtime"),
    ids: new IdRanges(),
    storageLimitBytes: 0,
    mkfsProgram: "mkfs.ext4",
    volumes: new Volumes(paths.volumes),
  };
  const own = containerPaths(paths, spec.id);
  const [steps, draft] = startSteps(host, spec, own, signal);
  for (const step of steps) if (step.name !== "start") await step.do();
  if (!recorded || draft.monitored === undefined) return;
  const { id, attempt, workspaceId, imageRoot } = spec;
  const startedAt = new Date().toISOString();
  const common = {
    version: 1,
    id,
    attempt,
    workspaceId,
    imageRoot,
    stopSignal: 15,
    terminal: false,
    stdin: false,
    restarts: { kind: "no", retriesMax: 0, count: 0, delayMs: 0 },
    startedAt,
    ports: [],
    volumes: [],
  } as const;
  await writeState(own.state, { ...common, phase: "created", bootId: await bootId(), ...draft.monitored });
}
