import type { ContainerServing, PublishedPort } from "../container/options.ts";
import { messageOf } from "../std/error.ts";
import { signalName } from "../std/signals.ts";
import { sleep } from "../std/wait.ts";
import { RuntimeError } from "./error.ts";
import { fullLayer } from "./files/writable-layer.ts";
import { cgroupOf, type Host } from "./host.ts";
import type { ContainerPaths } from "./layout.ts";
import { holdLog, removeLogFiles } from "./output/log-holder.ts";
import { isAlive, type ProcessIdentity } from "./process-identity.ts";
import { Attachment } from "./program/attach.ts";
import { ExecProcess, notRunning } from "./program/exec.ts";
import type { ExecRequest } from "./program/exec-process.ts";
import { OomKills } from "./program/oom-kills.ts";
import type { Restarts } from "./program/restart-policy.ts";
import { type OnRestart, RestartDecision } from "./program/restarts.ts";
import { startAgain } from "./program/start-again.ts";
import type { ExitStatus, ResourceUsage } from "./spec.ts";
import { removeContainer } from "./start-steps.ts";
import { type ContainerState, writeState } from "./state.ts";

const sigkill = 9;
const sigterm = 15;
const killTimeoutMs = 20_000;
const lostExitCode = 255;
/** Each takes two processes of the host's, outside of the container's limits. */
const programsMax = 64;

/** A container that was started, by this process or by the one before it; it may have ended since. */
export class RunningContainer {
  readonly id: string;
  readonly attempt: number;
  readonly workspaceId: string;
  /** The tree below its writable layer; still the caller's to release, after {@link cleanup}. */
  readonly imageRoot: string;
  /** Where it serves HTTP, if it does. */
  readonly serving: ContainerServing | undefined;
  /** How it ended for good. Never rejects; stays pending while it runs, and until its program is started again. */
  readonly exited: Promise<ExitStatus>;
  readonly #host: Host;
  readonly #paths: ContainerPaths;
  readonly #sameBoot: boolean;
  readonly #decision: RestartDecision;
  readonly #onCleaned: () => void;
  readonly #oomKills: OomKills;
  #state: ContainerState;
  /** That run beside its own, or are being started. */
  #programs = 0;
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
    this.#state = state;
    this.#sameBoot = sameBoot;
    this.#decision = new RestartDecision(sameBoot);
    this.#onCleaned = onCleaned;
    this.id = state.id;
    this.attempt = state.attempt;
    this.workspaceId = state.workspaceId;
    this.imageRoot = state.imageRoot;
    this.serving = state.serving;
    this.#oomKills = new OomKills(() => host.cgroups.oomKills(cgroupOf(host, state.id)));
    this.exited = this.#live();
  }

  /** Of its first process, in the host's numbers. */
  get pid(): number {
    return this.#state.init.pid;
  }

  /** When its program was started, for the last time. */
  get startedAt(): Date {
    return new Date(this.#state.startedAt);
  }

  /** Of its own, where its network is private. */
  get address(): string | undefined {
    return this.#state.address;
  }

  /** What is published, with the host's ports that were taken. */
  get ports(): readonly PublishedPort[] {
    return this.#state.ports;
  }

  /** How often its program was started again, or is to be. */
  get restarts(): number {
    return this.#state.restarts.count;
  }

  /** Whether its first process lives. */
  alive(): boolean {
    return this.#sameBoot && isAlive(this.#state.init);
  }

  /** Whether it lives, or may be started again. */
  goesOn(): boolean {
    return this.alive() || !this.#decision.isLast(this.#state.restarts);
  }

  /** From now on its program is started again when it ends, as its policy has it; whoever calls is told. */
  supervise(onRestart: OnRestart): void {
    this.#decision.supervise(onRestart);
  }

  /** Sends the image's stop signal, and SIGKILL to all that is left after `timeoutMs`. Resolves when it has ended. */
  async stop(timeoutMs: number): Promise<void> {
    this.#decision.endForGood();
    if (this.alive()) {
      await this.#host.oci.kill(this.id, this.#state.stopSignal, "init");
      if (await this.#endedWithin(timeoutMs)) return;
    }
    await this.kill();
  }

  /** Ends every process of it at once. Resolves when it has ended. */
  async kill(): Promise<void> {
    this.#decision.endForGood();
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

  /** Sends a signal to its first process; after one that is to end it nothing is started again. @throws RuntimeError `not_running` */
  async signal(signal: number): Promise<void> {
    if (!this.alive()) throw notRunning(this.id);
    if ([sigterm, sigkill, this.#state.stopSignal].includes(signal)) this.#decision.endForGood();
    await this.#host.oci.kill(this.id, signal, "init");
  }

  /** Runs a program in it, beside its own. @throws RuntimeError */
  async exec(request: ExecRequest): Promise<ExecProcess> {
    if (!this.alive()) throw notRunning(this.id);
    if (this.#programs >= programsMax)
      throw new RuntimeError(
        "too_many",
        `container ${this.id} has ${programsMax} programs beside its own already`,
        {
          next: "Try again when one has ended.",
        },
      );
    this.#programs += 1;
    try {
      const program = await ExecProcess.start(this.#host, this.#paths, request, await this.#oomKills.watch());
      void program.ended.then(() => {
        this.#programs -= 1;
      });
      return program;
    } catch (error) {
      this.#programs -= 1;
      throw error;
    }
  }

  /** Joins its standard input and its terminal, as far as it has them. @throws RuntimeError `not_running` */
  attach(): Attachment {
    if (!this.alive()) throw notRunning(this.id);
    return new Attachment(this.#host, this.#paths, this.#state);
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

  async #live(): Promise<ExitStatus> {
    for (;;) {
      const { restarts, startedAt } = this.#state;
      const waited = this.#ended();
      const status = waited ?? (await this.#observe(this.#sameBoot ? this.#state.monitor : undefined));
      const ranMs = status.finishedAt.getTime() - Date.parse(startedAt);
      const next = waited === undefined ? await this.#decision.next(restarts, status, ranMs) : restarts;
      if (next === undefined) return status;
      try {
        if (!(await this.#startAgain(status, next))) return status;
      } catch (error) {
        const reason = `its program could not be started again: ${messageOf(error)}`;
        this.#host.logger.error("a program could not be started again", {
          container: this.id,
          error: messageOf(error),
        });
        return { ...status, reason };
      }
    }
  }

  /** How its program ended that the process before this one was about to start again. */
  #ended(): ExitStatus | undefined {
    const { ended, phase } = this.#state;
    if (phase !== "waiting" || ended === undefined || !this.#sameBoot) return undefined;
    const { exitCode, signal, oomKilled, finishedAt } = ended;
    return {
      exitCode,
      ...(signal === undefined ? {} : { signal }),
      oomKilled,
      finishedAt: new Date(finishedAt),
    };
  }

  /** False: it was ended for good meanwhile. */
  async #startAgain(status: ExitStatus, restarts: Restarts): Promise<boolean> {
    const ended = { ...status, finishedAt: status.finishedAt.toISOString() };
    // Written first: the next process of ours goes on from here.
    this.#state = { ...this.#state, restarts, ended, phase: "waiting" };
    await writeState(this.#paths.state, this.#state);
    await this.#decision.tell({ kind: "waits", status, restarts });
    if (!(await this.#decision.wait(restarts))) return false;
    this.#state = await startAgain(this.#host, this.#paths, this.#state);
    this.#oomKills.countAnew();
    const { address, ports } = this.#state;
    await this.#decision.tell({ kind: "started", restarts, address, ports });
    // Whoever ended it meanwhile found no process to signal.
    if (this.#decision.final) await this.#host.oci.kill(this.id, sigkill, "all");
    return true;
  }

  async #observe(monitor: ProcessIdentity | undefined): Promise<ExitStatus> {
    const release = holdLog(this.#paths, this.#host.logWatch, this.#host.logger);
    const report = await this.#host.exits.wait(this.id, monitor);
    await release();
    if (report === undefined) return this.#lost();
    const signal = report.exitCode > 128 ? signalName(report.exitCode - 128) : undefined;
    return {
      exitCode: report.exitCode,
      ...(signal === undefined ? {} : { signal }),
      oomKilled: report.exitCode !== 0 && (await this.#oomKills.endedIt(report.finishedAt)),
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
    const reason = this.#sameBoot ? "monitor lost" : "its host was started anew";
    return { exitCode: lostExitCode, oomKilled: false, finishedAt: new Date(), reason };
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
