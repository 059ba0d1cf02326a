import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../std/error.ts";
import { logger } from "../std/log.ts";

const log = logger("worker");

/**
 * Gives what ran under the former id to the worker, where somebody can; see FormerWorkerStore.succeed.
 *
 * @returns ids of the containers; undefined when there is nothing to give
 */
export type Succeed = (formerId: string, workerId: string) => Promise<readonly string[] | undefined>;

/**
 * Workers of earlier versions chose their ids, and kept them in `worker-id`. Where worker and scheduler are one process, the
 * file is as good as the scheduler's own word, and its containers go on. Elsewhere nothing proves to a scheduler who had
 * an id: its containers are ended, and this says so. The file is gone afterwards.
 *
 * @param containerIds what was adopted
 */
export async function leaveFormerId(
  stateDir: string,
  worker: { readonly workerId: string; readonly containerIds: readonly string[] },
  succeed: Succeed | undefined,
): Promise<void> {
  const path = join(stateDir, "worker-id");
  const former = readId(path);
  if (former === undefined) return;
  const { workerId, containerIds } = worker;
  const given = await succeed?.(former, workerId);
  if (given !== undefined) {
    log.info("this worker has its key's id now, and goes on with what ran under the former one", {
      worker: workerId,
      former,
      containers: given,
    });
  } else if (containerIds.length > 0) {
    log.warn(
      "this worker has its key's id now: what ran under the former one, which nothing proves, is ended",
      {
        worker: workerId,
        former,
        containers: containerIds,
      },
    );
  }
  await rm(path, { force: true });
}

function readId(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}
