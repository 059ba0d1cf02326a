import type { ContainerServing, PublishedPort } from "../container/options.ts";
import { messageOf } from "../std/error.ts";
import { signalName } from "../std/signals.ts";
import { sleep } from "../std/wait.ts";
import { type AttachKind, Attachment } from "./attach.ts";
import { RuntimeError } from "./error.ts";
import { ExecProcess, notRunning } from "./exec.ts";
import type { ExecRequest } from "./exec-process.ts";
import { cgroupOf, type Host } from "./host.ts";
import type { ContainerPaths } from "./layout.ts";
import { holdLog, removeLogFiles } from "./log-holder.ts";
import { isAlive, type ProcessIdentity } from "./process-identity.ts";
import type { ExitStatus, ResourceUsage } from "./spec.ts";
import { removeContainer } from "./start-steps.ts";
import type { ContainerState } from "./state.ts";
import { fullLayer } from "./writable-layer.ts";

const sigkill = 9;
const killTimeoutMs = 20_000;
const lostExitCode = 255;

/** A container that was started, by this process or by the one before it; it may have ended since. */
export class RunningContainer {
  readonly id: string;
  readonly attempt: number;
  readonly workspaceId: string;
  /** Of its first process, in the host's numbers. */
  readonly pid: number;
  /** The tree below its writable layer; still the caller's to release, after {@link cleanup}. */
  readonly imageRoot: string;
  readonly startedAt: Date;
  /** Of its own, where its network is private. */
  readonly address: string | undefined;
  /** What is published, with the host's ports that were taken. */
  readonly ports: readonly PublishedPort[];
  /** Where it serves HTTP, if it does. */
  readonly serving: ContainerServing | undefined;
  /** How it ended. Never rejects; stays pending while it runs. */
  readonly exited: Promise<ExitStatus>;
  readonly #host: Host;
  readonly #paths: ContainerPaths;
  readonly #stopSignal: number;
  readonly #init: ProcessIdentity | undefined;
  readonly #kind: AttachKind;
  readonly #onCleaned: () => void;
  #cleaning: Promise<void> | undefined;

  constructor(
    host: Host,
    paths: ContainerPaths,
    state: ContainerState,
    sameBoot: boolean,
    onCleaned: () => void,
  ) {
    this.#host = host;
    this.#paths = paths;
    this.#stopSignal = state.stopSignal;
    this.#init = sameBoot ? state.init : undefined;
    this.#kind = state;
    this.#onCleaned = onCleaned;
    this.id = state.id;
    this.attempt = state.attempt;
    this.workspaceId = state.workspaceId;
    this.pid = state.init.pid;
    this.imageRoot = state.imageRoot;
    this.startedAt = new Date(state.startedAt);
    this.address = state.address;
    this.ports = state.ports;
    this.serving = state.serving;
    this.exited = this.#observe(sameBoot ? state.monitor : undefined);
  }

  /** Whether its first process lives. */
  alive(): boolean {
    return this.#init !== undefined && isAlive(this.#init);
  }

  /** Sends the image's stop signal, and SIGKILL to all that is left after `timeoutMs`. Resolves when it has ended. */
  async stop(timeoutMs: number): Promise<void> {
    if (this.alive()) {
      await this.#host.oci.kill(this.id, this.#stopSignal, "init");
      if (await this.#endedWithin(timeoutMs)) return;
    }
    await this.kill();
  }

  /** Ends every process of it at once. Resolves when it has ended. */
  async kill(): Promise<void> {
    if (this.alive()) await this.#host.oci.kill(this.id, sigkill, "all");
    if (await this.#endedWithin(killTimeoutMs)) return;
    throw new RuntimeError(
      "cleanup_failed",
      `container ${this.id} did not end within ${killTimeoutMs} ms of SIGKILL`,
      {
        next: "A process of it may hang in the kernel: see /proc/PID/stack, and try again.",
      },
    );
  }

  /** Sends a signal to its first process. @throws RuntimeError `not_running` */
  async signal(signal: number): Promise<void> {
    if (!this.alive()) throw notRunning(this.id);
    await this.#host.oci.kill(this.id, signal, "init");
  }

  /** Runs a program in it, beside its own. @throws RuntimeError */
  async exec(request: ExecRequest): Promise<ExecProcess> {
    if (!this.alive()) throw notRunning(this.id);
    return await ExecProcess.start(this.#host, this.#paths, request);
  }

  /** Joins its standard input and its terminal, as far as it has them. @throws RuntimeError `not_running` */
  attach(): Attachment {
    if (!this.alive()) throw notRunning(this.id);
    return new Attachment(this.#host, this.#paths, this.#kind);
  }

  /** What it uses now; zeros after it has ended. */
  usage(): Promise<ResourceUsage> {
    return this.#host.cgroups.usage(cgroupOf(this.#host, this.id));
  }

  /** What it may have had no room for, as a sentence; `undefined` where it had room. Between its end and {@link cleanup}. */
  full(exitCode: number): Promise<string | undefined> {
    return fullLayer(this.#paths, exitCode);
  }

  /** Ends it if it runs and removes all of it but its log. Safe to repeat; a repeat continues one that failed. */
  cleanup(): Promise<void> {
    this.#cleaning ??= this.#clean().catch((error: unknown) => {
      this.#cleaning = undefined;
      throw error;
    });
    return this.#cleaning;
  }

  /** Removes its log. */
  async removeLog(): Promise<void> {
    await removeLogFiles(this.#paths);
  }

  async #clean(): Promise<void> {
    await this.kill();
    await removeContainer(this.#host, this.#paths);
    this.#onCleaned();
  }

  async #observe(monitor: ProcessIdentity | undefined): Promise<ExitStatus> {
    const release = holdLog(this.#paths, this.#host.logWatch, this.#host.logger);
    const report = await this.#host.exits.wait(this.id, monitor);
    await release();
    if (report === undefined) return this.#lost();
    const signal = report.exitCode > 128 ? signalName(report.exitCode - 128) : undefined;
    const oomKills = await this.#host.cgroups.oomKills(cgroupOf(this.#host, this.id));
    return {
      exitCode: report.exitCode,
      ...(signal === undefined ? {} : { signal }),
      oomKilled: report.exitCode !== 0 && oomKills > 0,
      finishedAt: report.finishedAt,
    };
  }

  /** Nobody holds its output or will tell its exit code: what is left of it is ended. */
  async #lost(): Promise<ExitStatus> {
    if (this.alive()) {
      await this.#host.oci.kill(this.id, sigkill, "all").catch((error: unknown) =>
        this.#host.logger.error("a container without a monitor could not be ended", {
          container: this.id,
          error: messageOf(error),
        }),
      );
    }
    return { exitCode: lostExitCode, oomKilled: false, finishedAt: new Date(), reason: "monitor lost" };
  }

  async #endedWithin(timeoutMs: number): Promise<boolean> {
    const over = new AbortController();
    const timeout = sleep(timeoutMs, over.signal).then(
      () => false,
      () => false,
    );
    const ended = this.exited.then(() => true);
    const result = await Promise.race([ended, timeout]);
    over.abort();
    return result;
  }
}
