import { Code, ConnectError } from "@connectrpc/connect";
import { type WorkerBoot, type WorkerClients, workerFailure } from "../container/worker-client.ts";
import { printable } from "../std/printable.ts";

/** What a worker is given beside the time that its requests may take. */
const drainPatienceMs = 15_000;
const lastWordsTimeoutMs = 2_000;
const lastWordsLines = 20;
const lastWordsBytes = 4 * 1024;
const lineLengthMax = 300;

/**
 * Has a worker take no requests for a container any more; answers when those that it has are done, or the time is over. One
 * that the worker does not have any more, or that never took requests, is done.
 *
 * @throws ContainerError `worker_away`
 */
export async function drainContainer(
  workers: Pick<WorkerClients, "to">,
  worker: WorkerBoot,
  containerId: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    await workers
      .to(worker)
      .drainContainer({ containerId, timeoutMs }, { signal, timeoutMs: timeoutMs + drainPatienceMs });
  } catch (error) {
    const code = ConnectError.from(error).code;
    if (code === Code.NotFound || code === Code.FailedPrecondition || code === Code.Unimplemented) return;
    throw workerFailure(error, worker, `ending the requests of ${containerId}`, signal);
  }
}

/** The last lines of a container's output; empty where they cannot be had, or there are none. */
export async function lastWords(
  workers: Pick<WorkerClients, "to">,
  worker: WorkerBoot,
  containerId: string,
): Promise<string> {
  let tail = Buffer.alloc(0);
  try {
    const pieces = workers
      .to(worker)
      .streamLogs({ containerId, follow: false, tail: lastWordsLines }, { timeoutMs: lastWordsTimeoutMs });
    for await (const { data } of pieces) tail = Buffer.concat([tail, data]).subarray(-lastWordsBytes);
  } catch {
    // What there is of it is better than nothing.
  }
  const lines = new TextDecoder().decode(tail).trimEnd().split("\n").slice(-lastWordsLines);
  return lines.map((line) => printable(line.trimEnd(), lineLengthMax)).join("\n");
}
