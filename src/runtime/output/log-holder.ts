import { link, rename, rm, stat } from "node:fs/promises";
import { basename } from "node:path";
import { errnoOf } from "../../std/error.ts";
import type { Logger } from "../../std/log.ts";
import type { ContainerPaths } from "../layout.ts";
import type { DirectoryWatch } from "./directory-watch.ts";

/**
 * Keeps the generation of a log that its monitor drops: conmon bounds a log by giving its name to a new, empty file.
 * A second name holds the old one, which then becomes the previous log. While none of our processes runs, one
 * generation may be lost; the bound holds in any case.
 *
 * @returns stops holding, after a last look
 */
export function holdLog(paths: ContainerPaths, watch: DirectoryWatch, logger: Logger): () => Promise<void> {
  let running: Promise<void> | undefined;
  let again = false;
  const look = (): Promise<void> => {
    again = true;
    running ??= (async () => {
      while (again) {
        again = false;
        await keepGeneration(paths).catch((error: unknown) =>
          logger.warning("a generation of a log was not kept", { container: paths.id, error }),
        );
      }
      running = undefined;
    })();
    return running;
  };
  const unlisten = watch.listen(basename(paths.log), () => void look());
  void look();
  return async () => {
    unlisten();
    await look();
  };
}

async function keepGeneration(paths: ContainerPaths): Promise<void> {
  const log = await inodeOf(paths.log);
  const held = await inodeOf(paths.heldLog);
  if (log === undefined || log === held) return;
  if (held !== undefined) await rename(paths.heldLog, paths.previousLog);
  try {
    await link(paths.log, paths.heldLog);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

async function inodeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).ino;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Removes all that there is of a container's log. */
export async function removeLogFiles(paths: ContainerPaths): Promise<void> {
  for (const path of [paths.log, paths.previousLog, paths.heldLog]) await rm(path, { force: true });
}
