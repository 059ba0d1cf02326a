import { randomBytes } from "node:crypto";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { ProcessHandle } from "../../native/process.ts";
import { writeFileAtomic } from "../../std/atomic-file.ts";
import { errnoOf } from "../../std/error.ts";
import { signalName } from "../../std/signals.ts";
import { sleep } from "../../std/wait.ts";
import { RuntimeError } from "../error.ts";
import type { Host } from "../host.ts";
import type { ContainerPaths } from "../layout.ts";
import { readPid } from "../monitor.ts";
import { runtimeLogErrors, startError } from "../oci-runtime.ts";
import { DirectoryWatch } from "../output/directory-watch.ts";
import type { OutputPart } from "./exec-output.ts";
import { checkSize, type ExecRequest, execProcess, type TerminalSize } from "./exec-process.ts";
import { type ExecStreams, spawnWithPipes, spawnWithTerminal } from "./exec-streams.ts";
import type { OomWatch } from "./oom-kills.ts";

const sighup = 1;
/** Between SIGHUP and SIGKILL, when whoever wanted the program has gone. */
const hangUpGraceMs = 2_000;

/** How a program ended. */
export interface ExecEnd {
  /** 128 + n when signal n ended it. */
  readonly exitCode: number;
  readonly signal?: string;
  /** The kernel ended it, or a process beside it, for want of memory in its container. */
  readonly oomKilled: boolean;
}

interface Files {
  readonly directory: string;
  readonly process: string;
  readonly pid: string;
  readonly log: string;
}

/**
 * A program that runs in a container beside its own: in its namespaces and cgroup, with no more rights. The OCI runtime's
 * `exec` waits for it as our child; it ends with the container, or when it is left.
 */
export class ExecProcess {
  /** Whatever it writes, to be read by one; ends when nothing more can come. */
  readonly output: AsyncIterable<OutputPart>;
  /** After the output. Never rejects. */
  readonly ended: Promise<ExecEnd>;
  readonly #streams: ExecStreams;
  readonly #handle: ProcessHandle | undefined;
  #over = false;

  private constructor(streams: ExecStreams, handle: ProcessHandle | undefined, oom: OomWatch) {
    this.#streams = streams;
    this.#handle = handle;
    this.output = streams.output;
    this.ended = streams.exited.then(async (exitCode) => {
      this.#over = true;
      this.#handle?.close();
      const signal = exitCode > 128 ? signalName(exitCode - 128) : undefined;
      const oomKilled = signal === "SIGKILL" && (await oom.killed());
      return { exitCode, ...(signal === undefined ? {} : { signal }), oomKilled };
    });
  }

  /** @throws RuntimeError `command_not_found`, `permission`, `bad_user`, `bad_config`, `not_running`, `create_failed` */
  static async start(
    host: Host,
    paths: ContainerPaths,
    request: ExecRequest,
    oom: OomWatch,
  ): Promise<ExecProcess> {
    const spec = await execProcess(await bundleOf(paths), paths.merged, request);
    const directory = join(paths.execs, randomBytes(8).toString("hex"));
    const files = {
      directory,
      process: join(directory, "process.json"),
      pid: join(directory, "pid"),
      log: join(directory, "log"),
    };
    await mkdir(directory, { recursive: true, mode: 0o700 });
    try {
      // The environment may hold what the user wants kept: nobody else reads it, and no command line has it.
      await writeFileAtomic(files.process, JSON.stringify(spec), 0o600);
      const argv = argvOf(host, paths.id, files);
      const { terminal, size } = request;
      const streams = terminal ? spawnWithTerminal(argv, directory, size) : spawnWithPipes(argv, directory);
      const exec = new ExecProcess(streams, await started(host, paths.id, streams, files), oom);
      await rm(files.process, { force: true });
      // Its number stays there as long as it runs: see left-programs.ts.
      void exec.ended.then(() => remove(directory));
      return exec;
    } catch (error) {
      await remove(directory);
      throw error;
    }
  }

  /** Waits until the program takes more. What it does not read is lost, as on a pipe. */
  write(data: Uint8Array): Promise<void> {
    return this.#streams.write(data);
  }

  closeInput(): void {
    this.#streams.closeInput();
  }

  /** @throws RuntimeError `bad_config` */
  resize(size: TerminalSize): void {
    checkSize(size);
    this.#streams.resize(size);
  }

  /** Of the program itself, not of its children. One that has ended is fine. */
  signal(signal: number): void {
    if (this.#over) return;
    try {
      this.#handle?.kill(signal);
    } catch (error) {
      if (errnoOf(error) !== "ESRCH") throw error;
    }
  }

  /** Nobody wants it any more: it is hung up, and killed if it does not end. Resolves when it has ended. Safe to repeat. */
  async leave(): Promise<void> {
    this.closeInput();
    this.#streams.drop();
    this.signal(sighup);
    const over = new AbortController();
    const late = sleep(hangUpGraceMs, over.signal).then(
      () => this.#kill(),
      () => undefined,
    );
    await this.ended;
    over.abort();
    await late;
  }

  /** With all of its session, which is its own; and the runtime, which would wait for others that hold its output. */
  #kill(): void {
    if (this.#over) return;
    this.#handle?.killGroup();
    this.#streams.kill();
  }
}

async function remove(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
}

function argvOf({ oci }: Host, id: string, files: Files): string[] {
  return [
    ...[oci.program, "--root", oci.root, "--log", files.log, "--log-format", "json"],
    ...["exec", "--process", files.process, "--pid-file", files.pid, id],
  ];
}

/** Waits until the program runs: the runtime writes its number then. `undefined`: it has ended by now. */
async function started(
  { oci }: Host,
  id: string,
  streams: ExecStreams,
  files: Files,
): Promise<ProcessHandle | undefined> {
  const watch = new DirectoryWatch(files.directory);
  try {
    const written = new Promise<number>((resolve) => {
      const look = (): void => void readPid(files.pid).then((pid) => pid > 0 && resolve(pid));
      watch.listen("pid", look);
      look();
    });
    const pid = await Promise.race([written, streams.exited.then(() => undefined)]);
    if (pid !== undefined) return openProcess(pid);
    if ((await readPid(files.pid)) > 0) return undefined;
  } finally {
    watch.close();
  }
  const said = await runtimeLogErrors(files.log);
  if (/stopped container|not running|does not exist/i.test(said) && !/exec: /.test(said))
    throw notRunning(id);
  throw startError(id, oci.name, said || "it gave no reason");
}

function openProcess(pid: number): ProcessHandle | undefined {
  try {
    return ProcessHandle.open(pid);
  } catch (error) {
    if (errnoOf(error) === "ESRCH") return undefined;
    throw error;
  }
}

async function bundleOf(paths: ContainerPaths): Promise<string> {
  try {
    return await readFile(paths.config, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") throw notRunning(paths.id);
    throw error;
  }
}

export function notRunning(id: string): RuntimeError {
  return new RuntimeError(
    "not_running",
    `the program of container ${id} does not run: it has ended, or starts again in a moment`,
    {
      next: `See how it is: oci-node inspect ${id}`,
    },
  );
}
