import { realpath } from "node:fs/promises";
import type { VolumeMount } from "../../container/options.ts";
import { isBelow } from "../../container/policy.ts";
import { errnoOf } from "../../std/error.ts";
import { printable } from "../../std/printable.ts";
import { RuntimeError } from "../error.ts";

/**
 * Where a directory or file of the host is that a container wants, without links, if its workspace may have it: what was written
 * and where it leads must both be within what the operator allows. Whoever opens the result must follow no link any more.
 * @param allowed `/data`, `/models:ro`
 * @throws RuntimeError `volume`
 */
export async function hostPath(allowed: readonly string[], volume: VolumeMount): Promise<string> {
  const shown = printable(volume.source, 200);
  if (volume.source.split("/").includes("..") || !allowed.some((root) => isBelow(root, volume)))
    throw notAllowed(shown, allowed);
  const source = await whereItIs(volume.source, shown);
  const roots = await Promise.all(
    allowed.map(async (entry) => {
      const [root = "", mode] = entry.split(":");
      const real = await realpath(root).catch(() => undefined);
      return real === undefined ? [] : [mode === undefined ? real : `${real}:${mode}`];
    }),
  );
  if (!roots.flat().some((root) => isBelow(root, { ...volume, source }))) throw notAllowed(shown, allowed);
  return source;
}

async function whereItIs(path: string, shown: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (cause) {
    const why = errnoOf(cause) === "ENOENT" ? "is not there" : `cannot be reached (${errnoOf(cause)})`;
    throw new RuntimeError("volume", `${shown} ${why} on this worker's host`, {
      cause,
      next: "Make it there first, or use a volume with a name.",
    });
  }
}

function notAllowed(shown: string, allowed: readonly string[]): RuntimeError {
  return new RuntimeError("volume", `this worker's operator does not allow the workspace ${shown}`, {
    next: `It may have ${allowed.join(", ") || "nothing"}: see host_paths of the worker's own configuration.`,
  });
}
