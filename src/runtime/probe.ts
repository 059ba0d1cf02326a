import { tryRun } from "../std/spawn.ts";
import { type CgroupMode, Cgroups } from "./cgroups.ts";
import { findProgram, type RuntimeName } from "./oci-runtime.ts";

const versionTimeoutMs = 10_000;

export interface ProgramProbe {
  readonly name: string;
  /** Absent: not installed. */
  readonly path?: string;
  readonly version?: string;
}

/** What this host can run containers with. */
export interface RuntimeProbe {
  readonly runtime: ProgramProbe;
  readonly conmon: ProgramProbe;
  readonly cgroupMode: CgroupMode;
  /** Controllers that can limit or count, by name. */
  readonly controllers: readonly string[];
  readonly limits: Readonly<Record<"memory" | "swap" | "cpu" | "pids", boolean>>;
  /** Sentences about what keeps containers from starting here; none: all is well. */
  readonly problems: readonly string[];
  /** Sentences about what will work less than it could. */
  readonly warnings: readonly string[];
}

/** Looks without changing anything. Never throws for what is missing: that stands in `problems`. */
export async function probeRuntime(name: RuntimeName, conmonName = "conmon"): Promise<RuntimeProbe> {
  const [runtime, conmon, cgroups] = await Promise.all([
    probeProgram(name),
    probeProgram(conmonName),
    Cgroups.detect(),
  ]);
  const limits = {
    memory: cgroups.limits("memory"),
    swap: await cgroups.limitsSwap(),
    cpu: cgroups.limits("cpu"),
    pids: cgroups.limits("pids"),
  };
  const missing = [runtime, conmon].filter(({ version }) => version === undefined);
  const problem = cgroupProblem(name, cgroups.mode);
  return {
    runtime,
    conmon,
    cgroupMode: cgroups.mode,
    controllers: cgroups.controllers,
    limits,
    problems: [
      ...missing.map((program) => `${program.name} is not installed or does not run`),
      ...(problem === undefined ? [] : [problem]),
    ],
    warnings: Object.entries(limits)
      .filter(([, possible]) => !possible)
      .map(([resource]) => `containers cannot be limited in ${resource} here`),
  };
}

/** Why the runtime cannot work with the host's cgroups, if it cannot. */
export function cgroupProblem(name: RuntimeName, mode: CgroupMode): string | undefined {
  if (mode === "none") return "no cgroups are mounted under /sys/fs/cgroup";
  if (name === "crun" && mode === "hybrid")
    return "crun refuses hosts with hybrid cgroups (v1 and v2 side by side)";
  return undefined;
}

async function probeProgram(name: string): Promise<ProgramProbe> {
  try {
    const path = findProgram(name);
    const { exitCode, stdout } = await tryRun([path, "--version"], { timeoutMs: versionTimeoutMs });
    if (exitCode !== 0) return { name, path };
    return { name, path, version: /\d+(\.\d+)+\S*/.exec(stdout)?.[0] ?? stdout.trim() };
  } catch {
    return { name };
  }
}
