import { readFile } from "node:fs/promises";
import type { ImageConfig } from "../registry/image-config.ts";
import { RuntimeError } from "./error.ts";
import type { ContainerUser } from "./files/user.ts";
import { defaultCapabilities } from "./sandbox.ts";
import type { ContainerSpec } from "./spec.ts";

export const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const openFilesWanted = { soft: 65_536, hard: 1_048_576 };
const umask = 0o022;
/**
 * Whom the kernel ends first when the host itself has no memory left (proc_pid_oom_score_adj(5)): by far anything in a container
 * before the host's own, as the worker, and one without a limit before one that keeps to its own.
 */
const oomScores = { limited: 500, unlimited: 900 };

/**
 * What to execute: the image's Entrypoint, then the request's command or else the image's Cmd. An entrypoint of the
 * request's own takes the place of both, as Docker has it: the image's Cmd is made for the image's Entrypoint.
 * @throws RuntimeError `nothing_to_run`
 */
export function containerArgv(
  imageConfig: ImageConfig,
  command: readonly string[] | undefined,
  entrypoint?: readonly string[],
): string[] {
  const { Entrypoint, Cmd } = imageConfig.config;
  const own = command !== undefined && command.length > 0 ? command : undefined;
  const argv = entrypoint === undefined ? [...Entrypoint, ...(own ?? Cmd)] : [...entrypoint, ...(own ?? [])];
  if (argv.length > 0 && argv[0] !== "") return argv;
  throw new RuntimeError(
    "nothing_to_run",
    "the image names no program to run, and the request gives no command",
    {
      next: "Give a command: `oci-node run IMAGE -- COMMAND`.",
    },
  );
}

/** The image's variables, then the request's, over sane ones; `NAME=value`, each name once. */
export function containerEnv(spec: ContainerSpec, user: ContainerUser, hostname: string): string[] {
  const env = new Map([
    ["PATH", defaultPath],
    ["HOSTNAME", hostname],
    ["HOME", user.home],
    ...(spec.options.terminal ? [["TERM", "xterm"] as const] : []),
  ]);
  for (const entry of spec.imageConfig.config.Env) {
    const at = entry.indexOf("=");
    if (at > 0 && !entry.includes("\0")) env.set(entry.slice(0, at), entry.slice(at + 1));
  }
  for (const [name, value] of Object.entries(spec.env)) env.set(name, value);
  return [...env].map(([name, value]) => `${name}=${value}`);
}

/** The working directory: the request's, else the image's, `/` when neither names one. */
export function workingDirectory(imageConfig: ImageConfig, wanted = ""): string {
  const directory = wanted || imageConfig.config.WorkingDir;
  if (directory.includes("\0"))
    throw new RuntimeError("bad_config", "the container's working directory has a NUL in it");
  return directory.startsWith("/") ? directory : `/${directory}`;
}

/** Our own hard limit of open files (proc_pid_limits(5)): a container cannot have more without CAP_SYS_RESOURCE. */
export async function ownOpenFilesMax(): Promise<number> {
  const limits = await readFile("/proc/self/limits", "utf8");
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? "";
  return hard === "unlimited" ? Number.POSITIVE_INFINITY : Number(hard);
}

function openFiles(max: number): { soft: number; hard: number } {
  return { soft: Math.min(openFilesWanted.soft, max), hard: Math.min(openFilesWanted.hard, max) };
}

/** The `process` part of the bundle. */
export function processSection(
  spec: ContainerSpec,
  user: ContainerUser,
  hostname: string,
  openFilesMax: number,
): object {
  // A user other than root has them after an exec only if a file gives them: the bounding set alone counts.
  const held = user.uid === 0 ? defaultCapabilities : [];
  return {
    terminal: spec.options.terminal,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids, umask },
    args: containerArgv(spec.imageConfig, spec.command, spec.options.entrypoint),
    env: containerEnv(spec, user, hostname),
    cwd: workingDirectory(spec.imageConfig, spec.options.workingDirectory),
    capabilities: {
      bounding: defaultCapabilities,
      effective: held,
      permitted: held,
      inheritable: [],
      ambient: [],
    },
    rlimits: [
      { type: "RLIMIT_NOFILE", ...openFiles(openFilesMax) },
      { type: "RLIMIT_CORE", soft: 0, hard: 0 },
    ],
    noNewPrivileges: spec.noNewPrivileges ?? false,
    oomScoreAdj: (spec.memoryBytes ?? 0) > 0 ? oomScores.limited : oomScores.unlimited,
  };
}
