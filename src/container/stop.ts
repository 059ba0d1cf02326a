import type { Container } from "./container.ts";
import { ContainerError } from "./error.ts";
import { isEnded } from "./state.ts";
import type { ContainerStore } from "./store.ts";
import { isDatabaseAway, looksAt, type WatchDependencies } from "./watch.ts";
import { type WorkerBoot, type WorkerClients, workerFailure } from "./worker-client.ts";

/** Between the stop signal and SIGKILL. */
export const stopTimeoutMs = 10_000;
/** How long a worker may be away, or late with what it has to say, before the caller is told. */
const defaultPatienceMs = 15_000;

export interface StopDependencies extends WatchDependencies {
  readonly containers: Pick<ContainerStore, "get" | "list" | "transition">;
  readonly workers: Pick<WorkerClients, "to">;
  /** The latest boot of a worker, whether it serves now or not. */
  readonly findWorker: (id: string) => Promise<WorkerBoot | undefined>;
  readonly patienceMs?: number;
}

/**
 * Stops a container wherever it is on its way, and waits until it has ended. Stopping one that has ended is no error.
 *
 * @throws ContainerError `worker_away` when its worker does not answer for a while, or does not bring it to its end in time
 * @throws DOMException `AbortError` when the signal comes first
 */
export async function stopContainer(
  dependencies: StopDependencies,
  container: Container,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Container> {
  const left = new AbortController();
  const calls = new StopCalls(dependencies, timeoutMs, AbortSignal.any([signal, left.signal]));
  try {
    for await (const { container: current } of looksAt(dependencies, container, signal)) {
      if (isEnded(current.state)) return current;
      if (current.state !== "pending" && current.state !== "scheduled") {
        calls.look(current);
        continue;
      }
      // Its worker is told when it reports that it begins, if it was handed over by now. It may never be.
      const from = [current.state];
      const reason =
        current.state === "pending" ? "stopped before it was scheduled" : "stopped before it ran";
      await tryTransition(() =>
        dependencies.containers.transition(current.id, { from, attempt: current.attempt }, "stopped", {
          reason,
        }),
      );
    }
  } finally {
    left.abort();
  }
  throw new DOMException("the call was cancelled", "AbortError");
}

/** Stops every container of a workspace that lives, at once, and waits until they have ended. */
export async function stopContainersOf(
  dependencies: StopDependencies,
  workspaceId: string,
  signal: AbortSignal,
): Promise<void> {
  const living = await dependencies.containers.list(workspaceId);
  await Promise.all(
    living.map((container) => stopContainer(dependencies, container, stopTimeoutOf(container), signal)),
  );
}

/** Between the stop signal and SIGKILL: as the container was run with, where no other time is asked for. */
export function stopTimeoutOf({ options }: Pick<Container, "options">): number {
  return options.stopTimeoutMs || stopTimeoutMs;
}

/**
 * The calls to a container's worker, one at a time. They are made beside the looks at the container, which may end without
 * them: its worker may be given up. A worker that is away is called again, as it may be another boot of it by then.
 */
class StopCalls {
  readonly #dependencies: StopDependencies;
  readonly #timeoutMs: number;
  readonly #patienceMs: number;
  readonly #signal: AbortSignal;
  #attempt: number | undefined;
  /** Since when calls were made and none failed. */
  #calledAt = 0;
  #failed: { readonly error: unknown; readonly at: number } | undefined;
  #calling = false;

  constructor(dependencies: StopDependencies, timeoutMs: number, signal: AbortSignal) {
    this.#dependencies = dependencies;
    this.#timeoutMs = timeoutMs;
    this.#patienceMs = dependencies.patienceMs ?? defaultPatienceMs;
    this.#signal = signal;
  }

  /** Calls the worker of a container that has not ended, unless a call is under way. Throws what has to be told. */
  look(container: Container): void {
    const now = performance.now();
    if (this.#attempt !== container.attempt) {
      this.#attempt = container.attempt;
      this.#calledAt = now;
      this.#failed = undefined;
    }
    if (now - this.#calledAt >= this.#timeoutMs + this.#patienceMs) throw notEnded(container);
    if (this.#calling) return;
    if (this.#failed !== undefined) {
      const { error, at } = this.#failed;
      if (now - at >= this.#patienceMs || !isAway(error)) throw error;
    }
    this.#calling = true;
    this.#call(container)
      .then(
        () => {
          this.#failed = undefined;
        },
        (error: unknown) => {
          this.#failed = { error, at: this.#failed?.at ?? performance.now() };
          this.#calledAt = performance.now();
        },
      )
      .finally(() => {
        this.#calling = false;
      });
  }

  async #call({ id, workerId }: Container): Promise<void> {
    const { workers, findWorker } = this.#dependencies;
    const worker = workerId === undefined ? undefined : await findWorker(workerId);
    if (worker === undefined) return;
    const timeoutMs = this.#timeoutMs;
    try {
      await workers.to(worker).stopContainer({ containerId: id, timeoutMs }, { signal: this.#signal });
    } catch (error) {
      throw workerFailure(error, worker, `stopping ${id}`, this.#signal);
    }
  }
}

function isAway(error: unknown): boolean {
  return isDatabaseAway(error) || (error instanceof ContainerError && error.code === "worker_away");
}

/** The worker does not answer and its connection does not break, or it does and cannot report. */
function notEnded({ id, workerId }: Container): ContainerError {
  return new ContainerError(
    "worker_away",
    `stopping ${id}: worker ${workerId} has not brought it to its end in time, or could not report that`,
    {
      next:
        "It reports to a scheduler: check that both run, with `oci-node worker ls`. The container is stopped or will be, if its " +
        `worker was reached: see \`oci-node inspect ${id}\`. If the worker's host is gone: \`oci-node worker revoke\`.`,
    },
  );
}

/** Another one may have moved the container meanwhile: then the caller looks again. */
async function tryTransition(step: () => Promise<unknown>): Promise<void> {
  try {
    await step();
  } catch (error) {
    if (isDatabaseAway(error)) return;
    if (error instanceof ContainerError && (error.code === "conflict" || error.code === "stale_attempt"))
      return;
    if (error instanceof ContainerError && error.code === "illegal_transition") return;
    throw error;
  }
}
