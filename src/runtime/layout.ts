import { createHash } from "node:crypto";
import { join, resolve } from "node:path";

/**
 * Where the runtime keeps what it keeps: under its state directory what outlives a boot, under /run what does not, so
 * that a container that fills the state directory's disk still ends with its own exit code.
 */
export interface StatePaths {
  /** One directory per container. */
  readonly containers: string;
  /** `<workspace id>/<name>`: volumes, which outlive containers. */
  readonly volumes: string;
  /** `<id>.log` and the generation before it; outlive the container's directory. */
  readonly logs: string;
  /** `<id>`: the exit code, written by the container's monitor. */
  readonly exits: string;
  /** The OCI runtime's own state (`--root`). */
  readonly runtimeRoot: string;
  /** One directory per container that programs are run in beside its own. */
  readonly execs: string;
  /** `<id>/root`: where containers' roots are mounted. A container's own root user must be able to come there, and nobody else. */
  readonly roots: string;
}

/** The files of one container. */
export interface ContainerPaths {
  readonly id: string;
  /** The OCI bundle, and the monitor's working directory. */
  readonly home: string;
  readonly state: string;
  readonly config: string;
  readonly runtimeLog: string;
  readonly pidFile: string;
  readonly monitorPidFile: string;
  /** What undoing its network takes. */
  readonly network: string;
  /** hosts, hostname, resolv.conf: in the writable layer, because what the container writes there counts, too. */
  readonly etc: string;
  /** What the container sees of the host, attached by number. */
  readonly trees: string;
  /** A file system in memory. */
  readonly secrets: string;
  /** Where the image's tree is attached with the container's owners until the overlay is mounted. */
  readonly lower: string;
  /** Holds the writable layer as a file system, where it is limited. */
  readonly layerFile: string;
  /** The folder of {@link upper}, {@link work} and {@link etc}; a mount where it is limited. */
  readonly layer: string;
  readonly upper: string;
  readonly work: string;
  /** The folder of {@link merged}. */
  readonly mergedHome: string;
  /** Where the overlay is mounted: the container's root. */
  readonly merged: string;
  /** Where earlier versions mounted it. */
  readonly formerMerged: string;
  readonly exitFile: string;
  /** What the programs need that are run in it beside its own: a directory each. */
  readonly execs: string;
  /** Made by the monitor: its socket; where it takes the terminal's size. */
  readonly attach: string;
  readonly control: string;
  readonly windowSize: string;
  /** Where one can speak to its standard input, while somebody does; and the word that nothing more comes. */
  readonly stdinSocket: string;
  readonly stdinEnd: string;
  readonly log: string;
  /** The log before its last rotation. */
  readonly previousLog: string;
  /** A second name of the log's present file, by which it survives its rotation. */
  readonly heldLog: string;
}

export function statePaths(stateDir: string): StatePaths {
  const name = createHash("sha256").update(resolve(stateDir)).digest("hex").slice(0, 16);
  const volatile = join("/run/oci-node", name);
  return {
    containers: join(stateDir, "containers"),
    volumes: join(stateDir, "volumes"),
    logs: join(stateDir, "logs"),
    exits: join(volatile, "exits"),
    runtimeRoot: join(volatile, "runtime"),
    execs: join(volatile, "execs"),
    roots: join(volatile, "roots"),
  };
}

export function containerPaths(state: StatePaths, id: string): ContainerPaths {
  const home = join(state.containers, id);
  const log = join(state.logs, `${id}.log`);
  return {
    id,
    home,
    state: join(home, "state.json"),
    config: join(home, "config.json"),
    runtimeLog: join(home, "runtime.log"),
    pidFile: join(home, "pid"),
    monitorPidFile: join(home, "monitor.pid"),
    network: join(home, "network.json"),
    etc: join(home, "layer/etc"),
    trees: join(home, "trees"),
    secrets: join(home, "secrets"),
    lower: join(home, "lower"),
    layerFile: join(home, "layer.ext4"),
    layer: join(home, "layer"),
    upper: join(home, "layer/upper"),
    work: join(home, "layer/work"),
    mergedHome: join(state.roots, id),
    merged: join(state.roots, id, "root"),
    formerMerged: join(home, "root"),
    exitFile: join(state.exits, id),
    execs: join(state.execs, id),
    attach: join(home, "attach"),
    control: join(home, "ctl"),
    windowSize: join(home, "winsz"),
    stdinSocket: join(state.execs, id, "stdin"),
    stdinEnd: join(state.execs, id, "stdin.end"),
    log,
    previousLog: `${log}.1`,
    heldLog: `${log}.held`,
  };
}
