import { readFile } from "node:fs/promises";
import { z } from "zod";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { publishedPort } from "./network/record.ts";
import { restartSchema } from "./program/restart-policy.ts";

const identity = z.object({ pid: z.number().int().positive(), startTicks: z.string() });

const stateSchema = z.object({
  version: z.literal(1),
  id: z.string(),
  attempt: z.number().int(),
  workspaceId: z.string(),
  imageRoot: z.string(),
  /** Where its range of the host's ids begins; absent: its ids are the host's. */
  idBase: z.number().int().optional(),
  /** Names of its workspace's volumes that it uses. */
  volumes: z.array(z.string()).readonly().default([]),
  stopSignal: z.number().int(),
  /** Standard input, output and error are a terminal. */
  terminal: z.boolean().default(false),
  /** Standard input can be attached to. */
  stdin: z.boolean().default(false),
  restarts: restartSchema.default({ kind: "no", retriesMax: 0, count: 0, delayMs: 0 }),
  /** How its program ended that is to be started again. */
  ended: z
    .object({
      exitCode: z.number().int(),
      signal: z.string().optional(),
      oomKilled: z.boolean(),
      finishedAt: z.iso.datetime(),
    })
    .optional(),
  /** `created`: the process was not yet told to run when this was written; `waiting`: it ended, and is to be started again. */
  phase: z.enum(["created", "running", "waiting"]),
  bootId: z.string(),
  init: identity,
  monitor: identity,
  startedAt: z.iso.datetime(),
  /** Of a network of its own. */
  address: z.string().optional(),
  ports: z.array(publishedPort).readonly().default([]),
  /** Of an endpoint's. */
  serving: z
    .object({ port: z.number().int(), startupTimeoutMs: z.number().int(), concurrency: z.number().int() })
    .optional(),
});

/** What a later process of ours must know of a container; never its environment. */
export type ContainerState = z.infer<typeof stateSchema>;

export async function writeState(path: string, state: ContainerState): Promise<void> {
  await writeFileAtomic(path, JSON.stringify(state), 0o600);
}

/** `undefined` when there is none, or one that was not written by us. */
export async function readState(path: string): Promise<ContainerState | undefined> {
  try {
    return stateSchema.parse(JSON.parse(await readFile(path, "utf8")));
  } catch {
    return undefined;
  }
}
