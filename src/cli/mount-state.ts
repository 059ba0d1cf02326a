import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { z } from "zod";
import { readMounts } from "../native/mountinfo.ts";
import { identify, isAlive } from "../runtime/process-identity.ts";
import { writeFileAtomic } from "../std/atomic-file.ts";

const runDir = "/run/oci-node/mounts";

const schema = z.object({
  directory: z.string(),
  reference: z.string(),
  pid: z.number().int(),
  startTicks: z.string(),
});

/** Who serves the mount at a folder. */
export type MountState = z.infer<typeof schema>;

export interface MountPaths {
  readonly directory: string;
  readonly base: string;
  readonly state: string;
  readonly log: string;
  /** The lazy mount's own folder. */
  readonly mounts: string;
}

export function mountPaths(directory: string): MountPaths {
  const absolute = resolve(directory);
  const base = join(runDir, createHash("sha256").update(absolute).digest("hex").slice(0, 16));
  return {
    directory: absolute,
    base,
    state: join(base, "state.json"),
    log: join(base, "log"),
    mounts: join(base, "mounts"),
  };
}

export function readMountState(paths: MountPaths): MountState | undefined {
  try {
    return schema.parse(JSON.parse(readFileSync(paths.state, "utf8")));
  } catch {
    return undefined;
  }
}

export async function writeMountState(paths: MountPaths, reference: string): Promise<void> {
  const state: MountState = {
    directory: paths.directory,
    reference,
    ...((await identify(process.pid)) ?? { pid: process.pid, startTicks: "" }),
  };
  await writeFileAtomic(paths.state, JSON.stringify(state), 0o600);
}

/** Whether the process that wrote a state still lives. */
export const isServing: (state: MountState) => boolean = isAlive;

/** Whether something is mounted at a folder. */
export async function isMountPoint(directory: string): Promise<boolean> {
  return (await readMounts()).some(({ mountpoint }) => mountpoint === directory);
}
