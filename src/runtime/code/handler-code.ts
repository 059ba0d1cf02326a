import { join } from "node:path";
import type { Handler } from "../../container/options.ts";
import type { ContainerSpec } from "../spec.ts";
import { CodeCache, type CodeCacheOptions } from "./cache.ts";
import { withHandler } from "./handler-program.ts";
import { removeOtherRunners, writeRunner } from "./runner-folder.ts";

/** What serves a function of uploaded code in an image's own Python. */
export interface Runner {
  /** Below its folder. */
  readonly files: Readonly<Record<string, string>>;
  /** Where containers have the folder; Python starts it by that. */
  readonly path: string;
}

export interface HandlerCodeOptions extends CodeCacheOptions {
  readonly runner: Runner;
}

/** What containers need whose program is a function of uploaded code: the code itself, and what runs it. */
export class HandlerCode {
  readonly #cache: CodeCache;
  readonly #runner: Runner;
  /** With the runners of all versions. */
  readonly #runners: string;
  /** With ours. */
  readonly #runnerFolder: string;
  /** By container: how its code is being got, or was. */
  readonly #begun = new Map<string, { readonly abort: AbortController; readonly settled: Promise<void> }>();

  private constructor(cache: CodeCache, runner: Runner, runners: string, runnerFolder: string) {
    this.#cache = cache;
    this.#runner = runner;
    this.#runners = runners;
    this.#runnerFolder = runnerFolder;
  }

  static async open(options: HandlerCodeOptions): Promise<HandlerCode> {
    const { dir, runner } = options;
    const runners = join(dir, "runner");
    const [cache, folder] = await Promise.all([CodeCache.open(options), writeRunner(runners, runner.files)]);
    return new HandlerCode(cache, runner, runners, folder);
  }

  /**
   * Begins to fetch the code of a container, if it has any. What comes back makes its program of it, once its image is there.
   * @returns throws RuntimeError `code`, `no_python`; the signal's reason
   */
  begin(
    user: { readonly containerId: string; readonly workspaceId: string },
    handler: Handler | undefined,
    signal: AbortSignal,
  ): (spec: ContainerSpec, port: number | undefined) => Promise<ContainerSpec> {
    if (handler === undefined) return async (spec) => spec;
    const abort = new AbortController();
    const either = AbortSignal.any([signal, abort.signal]);
    const acquiring = this.#cache.acquire(user, handler.codeSha256, either);
    const settled = acquiring.then(
      () => undefined,
      () => undefined,
    );
    this.#begun.set(user.containerId, { abort, settled });
    const runner = { source: this.#runnerFolder, target: this.#runner.path };
    return async (spec, port) => withHandler(spec, handler, port, { code: await acquiring, runner });
  }

  /** A container needs its code no more, if it had any. */
  async release(containerId: string): Promise<void> {
    const begun = this.#begun.get(containerId);
    this.#begun.delete(containerId);
    begun?.abort.abort(new Error("the container has ended"));
    // Else it might get it just after that.
    await begun?.settled;
    await this.#cache.release(containerId);
  }

  /** Says which containers the process before this one has left. */
  async endAdoption(containerIds: ReadonlySet<string>): Promise<void> {
    await this.#cache.endAdoption(containerIds);
    // Those that are left may be started again with the runner that they have.
    if (!this.#cache.inUse) await removeOtherRunners(this.#runners, this.#runner.files);
  }
}
