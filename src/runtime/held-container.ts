import type { ContainerNetwork, ImageTransfer, NewContainerEvent } from "../container/container.ts";
import type { ContainerOptions, ContainerServing, Handler } from "../container/options.ts";
import type { PortRange } from "../container/policy.ts";
import type { ContainerState } from "../container/state.ts";
import type { LazyImage } from "../mount/lazy-image.ts";
import { CodedError, messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { sleep } from "../std/wait.ts";
import type { HandlerCode } from "./code/handler-code.ts";
import type { RunningContainer } from "./container.ts";
import { endOf, neverRanCode } from "./end-words.ts";
import { givenSecrets } from "./given-secrets.ts";
import type { ImageUser } from "./image/image-access.ts";
import type { ImageLease } from "./image/image-lease.ts";
import { traceKey } from "./image/image-mounting.ts";
import { type PullDependencies, type PullRequest, pullLazy, resupply } from "./image/pull-lazy.ts";
import { StartRecorder } from "./image/start-recorder.ts";
import type { Attachment } from "./program/attach.ts";
import { type ExecProcess, notRunning } from "./program/exec.ts";
import type { ExecRequest } from "./program/exec-process.ts";
import type { RestartNews } from "./program/restarts.ts";
import type { Forwarder } from "./requests/forwarder.ts";
import { bringUp } from "./requests/serving.ts";
import type { Runtime } from "./runtime.ts";
import type { Report, ReportedStep } from "./scheduler-client.ts";
import type { ExitStatus } from "./spec.ts";
import { specOf } from "./spec-of-request.ts";

const log = logger("worker");
/** How long the stop signal waits for the report that it is about to come. */
const tellStoppingMs = 500;

/** Everything that a worker was told of a container. */
export interface WorkerContainerRequest extends PullRequest {
  readonly env: Readonly<Record<string, string>>;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly network: ContainerNetwork;
  readonly options: ContainerOptions;
  /** Values of the secrets that the options name, sealed to this boot; empty: none. */
  readonly sealedSecrets: string;
  /** The program is this function, in a runner. */
  readonly handler: Handler | undefined;
  /** Of an endpoint's containers. */
  readonly serving: ContainerServing | undefined;
  readonly workspaceName: string;
}

export interface HoldDependencies extends PullDependencies {
  readonly runtime: Runtime;
  readonly code: HandlerCode;
  /** Has the containers that serve HTTP. */
  readonly forwarder: Forwarder;
  /** Where the operator lets a workspace publish ports, by its name; absent: anywhere. */
  readonly publish?: (workspaceName: string) => readonly PortRange[];
  /** Which directories of this host a workspace may have as volumes, by its name; absent: none. */
  readonly hostPaths?: (workspaceName: string) => readonly string[];
  /** False: the scheduler does not count the container as this worker's any more. */
  readonly report: (report: Report) => Promise<boolean>;
}

/** What holds an image for a container: a lazy mount of this process, or one that outlived the process before it. */
export type HeldImage = Pick<LazyImage, "release"> & Partial<Pick<LazyImage, "stats" | "failure">>;

/** One container on this worker, from the request (or its adoption) until nothing of it is left but its log. */
export class HeldContainer {
  readonly id: string;
  readonly attempt: number;
  readonly workspaceId: string;
  /** Of its image; empty when nothing of that was left. */
  readonly manifestDigest: string;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  /** Resolves when it runs and was told to, or will never run. */
  readonly begun: Promise<void>;
  /** Resolves when it has ended, was reported and is cleaned up. Never rejects. */
  readonly done: Promise<void>;
  readonly #dependencies: HoldDependencies;
  readonly #begun = Promise.withResolvers<void>();
  readonly #abort = new AbortController();
  #running: RunningContainer | undefined;
  #image: HeldImage | undefined;
  #lease: ImageLease | undefined;
  #stopping: Promise<void> | undefined;
  #imageFailure: string | undefined;
  /** It serves HTTP, and does not answer yet, or has not in time. */
  #unready: string | undefined;
  #recorder: StartRecorder | undefined;
  #events: NewContainerEvent[] = [];
  #phases: Record<string, Date> = {};
  #reported: Promise<unknown> = Promise.resolve();

  private constructor(
    dependencies: HoldDependencies,
    of: ImageUser & { readonly cpuMillis: number; readonly memoryBytes: number },
    life: (held: HeldContainer) => Promise<void>,
  ) {
    this.#dependencies = dependencies;
    this.id = of.containerId;
    this.attempt = of.attempt;
    this.workspaceId = of.workspaceId;
    this.manifestDigest = of.manifestDigest;
    this.cpuMillis = of.cpuMillis;
    this.memoryBytes = of.memoryBytes;
    this.done = life(this).catch((error) => {
      log.error("a container was not brought to its end", { container: this.id, error: messageOf(error) });
    });
    this.begun = Promise.race([this.#begun.promise, this.done]);
  }

  /** Takes a request up; everything after that happens by itself and is reported. */
  static start(dependencies: HoldDependencies, request: WorkerContainerRequest): HeldContainer {
    return new HeldContainer(dependencies, request, (held) => held.#run(request));
  }

  /** Goes on with a container that the process before this one started, and whose image can be read. */
  static adopt(
    dependencies: HoldDependencies,
    running: RunningContainer,
    image: LazyImage,
    manifestDigest: string,
  ): HeldContainer {
    const user = userOf(running, manifestDigest);
    return HeldContainer.#adopt(dependencies, running, image, user, (held) => {
      held.#event("adopted", "its worker restarted and adopted it");
      if (image.stats().complete) return;
      held.#lease = resupply(dependencies, user, image, (...event) => held.#tell(...event));
    });
  }

  /** Tells the end of a container that ended while no process of ours was there. */
  static adoptEnded(
    dependencies: HoldDependencies,
    running: RunningContainer,
    image: HeldImage,
  ): HeldContainer {
    const user = userOf(running, "");
    return HeldContainer.#adopt(dependencies, running, image, user, (held) => {
      held.#event("adopted", "its worker restarted and adopted it");
    });
  }

  static #adopt(
    dependencies: HoldDependencies,
    running: RunningContainer,
    image: HeldImage,
    user: ImageUser,
    begin: (held: HeldContainer) => void,
  ): HeldContainer {
    const of = { ...user, cpuMillis: 0, memoryBytes: 0 };
    return new HeldContainer(dependencies, of, async (held) => {
      held.#running = running;
      held.#image = image;
      begin(held);
      // The process before may have died before it could tell that the container runs.
      await held.#report(runningReport(running));
      await held.#watch(running);
    });
  }

  /** Ends a container whose image's mount died with the process before this one: it could only read errors. */
  static adoptLost(
    dependencies: HoldDependencies,
    running: RunningContainer,
    image: HeldImage,
  ): HeldContainer {
    const of = { ...userOf(running, ""), cpuMillis: 0, memoryBytes: 0 };
    return new HeldContainer(dependencies, of, async (held) => {
      held.#running = running;
      held.#image = image;
      await running.kill();
      const { exitCode, finishedAt } = await running.exited;
      const reason = "its image's mount died with the worker's process";
      await held.#report({ state: "failed", at: finishedAt, exitCode, reason });
      await held.#cleanUp();
    });
  }

  /** Ends it, wherever it is on its way. Resolves when it is gone. Safe to repeat; a shorter timeout counts. */
  async stop(timeoutMs: number): Promise<void> {
    const again = this.#stopping !== undefined;
    this.#stopping ??= this.#stop(timeoutMs);
    if (again && this.#running !== undefined) await this.#running.stop(timeoutMs);
    await this.#stopping;
    await this.done;
  }

  /** Sends a signal to its program. @throws RuntimeError `not_running` */
  async signal(signal: number): Promise<void> {
    await this.#runs().signal(signal);
  }

  /** Runs a program beside its own. @throws RuntimeError */
  async exec(request: ExecRequest): Promise<ExecProcess> {
    return await this.#runs().exec(request);
  }

  /** Joins its standard input and terminal. @throws RuntimeError `not_running` */
  attach(): Attachment {
    return this.#runs().attach();
  }

  #runs(): RunningContainer {
    if (this.#running === undefined) throw notRunning(this.id);
    return this.#running;
  }

  transfer(): ImageTransfer | undefined {
    return this.#image?.stats?.();
  }

  async #stop(timeoutMs: number): Promise<void> {
    this.#abort.abort();
    if (this.#running === undefined) return;
    // Told first, so that it is seen; but a scheduler that is away keeps nothing running.
    const told = this.#report({ state: "stopping" }).catch(() => undefined);
    await Promise.race([told, sleep(tellStoppingMs)]);
    await this.#running.stop(timeoutMs);
  }

  async #run(request: WorkerContainerRequest): Promise<void> {
    const { signal } = this.#abort;
    if (!(await this.#report({ state: "preparing" }))) {
      this.#dependencies.prepared.drop(request);
      return;
    }
    const program = this.#dependencies.code.begin(request, request.handler, signal);
    try {
      const secrets = await givenSecrets(this.#dependencies, request);
      const pulled = await pullLazy(this.#dependencies, request, (...event) => this.#tell(...event), signal);
      this.#image = pulled.image;
      this.#lease = pulled.lease;
      if (this.#dependencies.traces)
        this.#recorder = new StartRecorder(pulled.image, this.#dependencies.index.traces, traceKey(request));
      this.#phase("mounted");
      this.#event("mount", "the image is mounted");
      const spec = await program(specOf(this.#dependencies, request, pulled, secrets), request.serving?.port);
      this.#running = await this.#dependencies.runtime.start(spec, signal);
    } catch (error) {
      await this.#failed(error);
      return;
    }
    // The report of a container that was stopped in this very moment is the one of its end.
    if (!signal.aborted && !(await this.#report(runningReport(this.#running)))) {
      await this.#running.kill();
    }
    if (signal.aborted) await this.#running.stop(1);
    await this.#watch(this.#running);
  }

  async #watch(running: RunningContainer): Promise<void> {
    this.#begun.resolve();
    void this.#image?.failure?.then((failure) => this.#onImageFailure(failure));
    running.supervise((news) => this.#onRestart(news));
    if (running.serving !== undefined) void this.#serve(running, running.serving);
    const status = await running.exited;
    this.#phase("exited", status.finishedAt);
    const transfer = this.transfer();
    log.info("container ended", {
      container: this.id,
      exitCode: status.exitCode,
      oomKilled: status.oomKilled,
    });
    await this.#report({
      state: this.#endState(status),
      at: status.finishedAt,
      exitCode: status.exitCode,
      ...(status.signal === undefined ? {} : { signal: status.signal }),
      oomKilled: status.oomKilled,
      ...(await this.#reasonOf(status)),
      ...(transfer === undefined ? {} : { transfer }),
    });
    await this.#recorder?.finish();
    await this.#cleanUp();
  }

  /** It counts as running meanwhile. */
  #onRestart(news: RestartNews): void {
    const { count, delayMs } = news.restarts;
    if (news.kind === "waits") {
      log.info("container's program ended, to be started again", { container: this.id, count, delayMs });
      this.#event("restart", `its program ended (${endOf(news.status)}); restarts in ${delayMs} ms`);
      void this.#flush().catch(() => undefined);
      return;
    }
    const { address, ports } = news;
    this.#event("restart", `its program runs again; restarts by now: ${count}`);
    void this.#report({ restarts: count, address, ports }).catch(() => undefined);
  }

  async #serve(running: RunningContainer, serving: ContainerServing): Promise<void> {
    this.#unready = `it ended before its port ${serving.port} answered`;
    this.#unready = await bringUp(this.#dependencies.forwarder, running, serving);
    if (this.#unready !== undefined) return await running.kill().catch(() => undefined);
    this.#phase("ready");
    this.#tell("ready", `its port ${serving.port} answers`);
  }

  #endState(status: ExitStatus): ContainerState {
    if (this.#stopping !== undefined) return "stopped";
    return status.reason === undefined && this.#unready === undefined ? "exited" : "failed";
  }

  async #reasonOf(status: ExitStatus): Promise<{ reason?: string }> {
    if (status.reason !== undefined) return { reason: status.reason };
    if (status.oomKilled) return { reason: "it used more memory than its limit" };
    if (status.exitCode !== 0 && this.#imageFailure !== undefined) return { reason: this.#imageFailure };
    const full = await this.#running?.full(status.exitCode);
    if (full !== undefined) return { reason: full };
    if (this.#unready === undefined || this.#stopping !== undefined) return {};
    return { reason: this.#unready };
  }

  /** A part of the image could not be fetched: the reader got EIO, the container's events say why. */
  #onImageFailure(failure: unknown): void {
    const cause =
      failure instanceof CodedError && failure.cause instanceof CodedError ? failure.cause : failure;
    this.#imageFailure = describe(cause);
    this.#recorder?.drop();
    log.error("a part of the image could not be read", { container: this.id, error: this.#imageFailure });
    this.#event("image", this.#imageFailure);
    void this.#flush().catch(() => undefined);
  }

  async #failed(error: unknown): Promise<void> {
    const stopped = this.#stopping !== undefined;
    const reason = stopped ? "stopped before it ran" : describe(error);
    this.#recorder?.drop();
    log[stopped ? "info" : "error"]("container did not start", { container: this.id, reason });
    await this.#cleanUp();
    const exitCode = stopped ? undefined : neverRanCode(error);
    await this.#report({
      state: stopped ? "stopped" : "failed",
      reason,
      ...(exitCode === undefined ? {} : { exitCode }),
    });
  }

  async #cleanUp(): Promise<void> {
    try {
      await this.#running?.cleanup();
      await this.#image?.release();
      await this.#dependencies.code.release(this.id);
    } catch (error) {
      log.error("a container could not be cleaned up", { container: this.id, error: messageOf(error) });
    } finally {
      this.#lease?.end();
    }
  }

  /** An event that is reported at once when no other report is to come soon. */
  #tell(kind: string, message: string, fields?: Record<string, string>): void {
    this.#event(kind, message, fields);
    if (this.#running !== undefined) void this.#flush().catch(() => undefined);
  }

  #event(kind: string, message: string, fields: Record<string, string> = {}): void {
    this.#events.push({ at: new Date(), kind, message, fields });
  }

  #phase(name: string, at = new Date()): void {
    this.#phases[name] ??= at;
  }

  async #flush(): Promise<void> {
    await this.#report({});
  }

  /** Reports a step with the events and phases that have gathered, after what was reported before: else it may overtake that. */
  #report(step: ReportedStep): Promise<boolean> {
    const reported = this.#reported.then(() => {
      const [events, phases] = [this.#events, this.#phases];
      [this.#events, this.#phases] = [[], {}];
      return this.#dependencies.report({
        containerId: this.id,
        attempt: this.attempt,
        ...step,
        events,
        phases,
      });
    });
    this.#reported = reported.catch(() => undefined);
    return reported;
  }
}

function runningReport({ startedAt, address, ports, restarts }: RunningContainer) {
  return { state: "running", at: startedAt, address, ports, ...(restarts > 0 && { restarts }) } as const;
}

function userOf(running: RunningContainer, manifestDigest: string): ImageUser {
  const { id: containerId, attempt, workspaceId } = running;
  return { containerId, attempt, workspaceId, manifestDigest };
}

/** One sentence for the container's reason, with the next step; never the text of an error that is not ours. */
export function describe(error: unknown): string {
  if (!(error instanceof CodedError)) return "the worker failed unexpectedly";
  return error.next === undefined ? error.message : `${error.message}. ${error.next}`;
}
