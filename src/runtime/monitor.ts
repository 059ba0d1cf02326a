import { type ChildProcess, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import type { Readable } from "node:stream";
import { messageOf } from "../std/error.ts";
import { cleanEnvironment } from "../std/spawn.ts";
import { RuntimeError } from "./error.ts";
import type { ContainerPaths } from "./layout.ts";
import { type OciRuntime, runtimeLogErrors, startError } from "./oci-runtime.ts";
import { identify, type ProcessIdentity } from "./process-identity.ts";

const createTimeoutMs = 60_000;
const syncPipeFd = 3;

export interface MonitorOptions {
  /** conmon's path. */
  readonly program: string;
  readonly runtime: OciRuntime;
  readonly exitsDirectory: string;
  /** A log that would grow beyond it begins anew. */
  readonly logSizeMaxBytes: number;
  /** The container's standard input, output and error are a terminal of the monitor's. */
  readonly terminal: boolean;
  /** The monitor hands on what it is told at its socket (`attach` in the bundle); otherwise there is nothing to read. */
  readonly stdin: boolean;
}

export interface Monitored {
  /** The container's first process, waiting to be started. */
  readonly init: ProcessIdentity;
  readonly monitor: ProcessIdentity;
}

/**
 * Makes the container of a bundle under a monitor of its own (conmon): a process in its own session that holds the
 * container's output and exit status, lives as long as the container and needs nothing of ours. It tells the container's
 * pid, or the runtime's complaint, on a pipe that it knows by `_OCI_SYNCPIPE`.
 * @throws RuntimeError
 */
export async function createUnderMonitor(paths: ContainerPaths, options: MonitorOptions): Promise<Monitored> {
  const child = startMonitor(paths, options);
  const [words, complaint] = await Promise.all([firstLine(child), drain(child.stderr), ended(child)]);
  const pid = pidOf(words);
  if (pid === undefined) {
    const said = (await runtimeLogErrors(paths.runtimeLog)) || messageIn(words) || complaint;
    throw startError(paths.id, options.runtime.name, said || "it gave no reason");
  }
  const init = await identify(pid);
  const monitor = await identify(await readPid(paths.monitorPidFile));
  if (init === undefined || monitor === undefined) {
    throw new RuntimeError("create_failed", `container ${paths.id} ended before it was started`);
  }
  return { init, monitor };
}

/** The pid that the monitor wrote about itself; 0 when there is none. */
export async function readPid(path: string): Promise<number> {
  return Number((await readFile(path, "utf8").catch(() => "")).trim() || 0);
}

function startMonitor(paths: ContainerPaths, options: MonitorOptions): ChildProcess {
  const { runtime } = options;
  try {
    return spawn(options.program, monitorArguments(paths, options), {
      cwd: paths.home,
      env: { ...cleanEnvironment, _OCI_SYNCPIPE: String(syncPipeFd) },
      detached: true,
      stdio: ["ignore", "ignore", "pipe", "pipe"],
    });
  } catch (cause) {
    throw new RuntimeError(
      "runtime_missing",
      `the monitor of ${runtime.name} could not be started: ${messageOf(cause)}`,
      {
        cause,
        next: "Install conmon, or see `oci-node doctor`.",
      },
    );
  }
}

function monitorArguments(paths: ContainerPaths, options: MonitorOptions): string[] {
  const { runtime } = options;
  const runtimeArguments = [`--root=${runtime.root}`, `--log=${paths.runtimeLog}`, "--log-format=json"];
  return [
    ...["--api-version", "1", "--cid", paths.id, "--cuuid", paths.id, "--name", paths.id],
    ...["--bundle", paths.home, "--runtime", runtime.program],
    ...["--container-pidfile", paths.pidFile, "--conmon-pidfile", paths.monitorPidFile],
    ...["--exit-dir", options.exitsDirectory],
    ...[
      "--log-path",
      `k8s-file:${paths.log}`,
      "--log-size-max",
      String(options.logSizeMaxBytes),
      "--no-sync-log",
    ],
    ...["--log-level", "error", "--full-attach"],
    // A terminal's end of input is a character: it outlives who types.
    ...(options.terminal ? ["--terminal", "--leave-stdin-open"] : []),
    ...(options.stdin ? ["--stdin"] : []),
    ...runtimeArguments.map((argument) => `--runtime-arg=${argument}`),
  ];
}

/** The monitor's one line on the sync pipe; empty when it ended without one. */
function firstLine(child: ChildProcess): Promise<string> {
  const pipe = child.stdio[syncPipeFd] as Readable;
  return new Promise((resolve) => {
    let text = "";
    const finish = (): void => {
      clearTimeout(timer);
      pipe.destroy();
      resolve(text);
    };
    const timer = setTimeout(finish, createTimeoutMs);
    pipe.on("data", (part: Buffer) => {
      text += part.toString();
      if (text.includes("\n") || isWhole(text)) finish();
    });
    pipe.on("error", finish);
    pipe.on("close", finish);
  });
}

function isWhole(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

async function drain(stream: Readable | null): Promise<string> {
  let text = "";
  if (stream === null) return text;
  for await (const part of stream) if (text.length < 8192) text += String(part);
  return text.trim();
}

/** The process that we started ends as soon as the monitor has become a daemon. */
function ended(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.on("close", () => resolve());
    child.on("exit", () => resolve());
    child.on("error", () => resolve());
  });
}

function pidOf(words: string): number | undefined {
  try {
    const pid = (JSON.parse(words) as { data?: number; pid?: number }).data;
    return pid !== undefined && pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

function messageIn(words: string): string {
  try {
    return (JSON.parse(words) as { message?: string }).message ?? "";
  } catch {
    return words;
  }
}
