import type { ContainerNetwork, ContainerOptions, ContainerServing } from "../container/options.ts";
import type { PortRange } from "../container/policy.ts";
import type { ImageConfig } from "../registry/image-config.ts";
import { RuntimeError } from "./error.ts";

/** A file or directory of the worker's own, shown in the container: read-only, without devices, setuid bits. */
export interface HostBind {
  readonly source: string;
  readonly target: string;
}

/** What to run, and on which image. */
export interface ContainerSpec {
  /** Names the container in cgroups, files and the runtime: letters, digits, `_`, `.`, `-`; at most 64. */
  readonly id: string;
  /** Which try of the request this is; one attempt of an id is here at a time. */
  readonly attempt: number;
  readonly workspaceId: string;
  /** A mounted, read-only tree; stays the caller's. */
  readonly imageRoot: string;
  readonly imageConfig: ImageConfig;
  /** Replaces the image's Cmd (not its Entrypoint) when it is not empty. */
  readonly command?: readonly string[];
  /** Wins over the image's. */
  readonly env: Readonly<Record<string, string>>;
  /** Thousandths of a CPU; absent or 0: no limit. */
  readonly cpuMillis?: number;
  /** Memory without swap; absent or 0: no limit. */
  readonly memoryBytes?: number;
  readonly network: ContainerNetwork;
  readonly options: ContainerOptions;
  /** Where the operator lets its workspace publish ports; absent: anywhere. */
  readonly publish?: readonly PortRange[] | undefined;
  /** Kept with the container, for a later process of ours. */
  readonly serving?: ContainerServing | undefined;
  /** Directories of the host that its workspace may have as volumes, with all below: `/data`, `/models:ro`; absent: none. */
  readonly hostPaths?: readonly string[] | undefined;
  /** Files and directories of the worker's own that are shown in the container, read-only: code, runner. */
  readonly binds?: readonly HostBind[];
  /** Values for files in memory that `options.secrets` name, by secret name; variables of secrets are in `env`. */
  readonly secretFiles?: ReadonlyMap<string, Uint8Array>;
  /** Forbids gaining privileges by setuid programs; absent: false, as Docker. */
  readonly noNewPrivileges?: boolean;
}

/** How a container ended. */
export interface ExitStatus {
  /** The program's own; 128 + n when signal n ended it; 255 when its monitor was lost and nobody knows. */
  readonly exitCode: number;
  /** The signal's name, such as `SIGKILL`. */
  readonly signal?: string;
  /** The kernel ended a process of the container for want of memory, and the container did not end well. */
  readonly oomKilled: boolean;
  readonly finishedAt: Date;
  /** Why the exit code is not the program's own. */
  readonly reason?: string;
}

/** A part of a container's output, at most one read of its monitor: one or several lines, or a part of one. */
export interface LogChunk {
  readonly stream: "stdout" | "stderr";
  readonly time: Date;
  /** The bytes as they were written, newlines included. */
  readonly data: Uint8Array;
}

/** What a container uses now. */
export interface ResourceUsage {
  readonly memoryBytes: number;
  readonly cpuNanoseconds: bigint;
  readonly pids: number;
}

/** Refuses a spec that cannot name a container or that asks for what no host can hold. */
export function checkSpec(spec: ContainerSpec): void {
  if (!isContainerId(spec.id))
    throw new RuntimeError("bad_config", `${JSON.stringify(spec.id)} cannot name a container`);
  for (const [name, value] of Object.entries(spec.env)) {
    if (name === "" || name.includes("=") || name.includes("\0") || value.includes("\0")) {
      throw new RuntimeError(
        "bad_config",
        `${JSON.stringify(name)} cannot be an environment variable of container ${spec.id}`,
      );
    }
  }
  for (const word of spec.command ?? []) {
    if (word.includes("\0"))
      throw new RuntimeError("bad_config", `the command of container ${spec.id} has a NUL in it`);
  }
  if (spec.serving !== undefined && spec.network === "none") {
    throw new RuntimeError("network", "it serves HTTP, and without a network nothing reaches it", {
      next: "Give it the network `private` or `host`.",
    });
  }
  checkCount(spec, "cpuMillis", 1_000_000);
  checkCount(spec, "memoryBytes", Number.MAX_SAFE_INTEGER);
}

function checkCount(spec: ContainerSpec, field: "cpuMillis" | "memoryBytes", max: number): void {
  const value = spec[field] ?? 0;
  if (!Number.isSafeInteger(value) || value < 0 || value > max) {
    throw new RuntimeError(
      "bad_config",
      `${field} of container ${spec.id} must be between 0 and ${max}, not ${value}`,
    );
  }
}

export function isContainerId(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(text) && !text.includes("..");
}
