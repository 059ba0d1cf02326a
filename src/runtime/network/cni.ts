import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { messageOf } from "../../std/error.ts";
import { tryRun } from "../../std/spawn.ts";
import { RuntimeError } from "../error.ts";

/** The container's end of its link. */
const containerInterface = "eth0";
const pluginTimeoutMs = 30_000;
export const cniVersion = "1.0.0";
/** Those that private networks are made of. */
export const networkPlugins = ["ptp", "host-local", "portmap"] as const;

const resultSchema = z.looseObject({
  interfaces: z.array(z.looseObject({ name: z.string(), sandbox: z.string().optional() })),
  ips: z.array(z.looseObject({ address: z.string(), interface: z.number().int().optional() })).nonempty(),
});
const failureSchema = z.looseObject({ msg: z.string(), details: z.string().optional() });

/** What a plugin says of the links and addresses that it made; handed on to the next plugin as it is. */
export type CniResult = z.infer<typeof resultSchema>;

/** One plugin's part of a network: its own fields, named as its documentation does. */
export interface CniConfig {
  readonly type: string;
  readonly name: string;
  readonly [field: string]: unknown;
}

export interface CniCall {
  readonly containerId: string;
  /** Of the container's network namespace; empty when it is gone. */
  readonly namespace: string;
  readonly pluginFolders: readonly string[];
}

/**
 * Has a CNI plugin add its part of a network to a container (CNI specification 1.0.0, "Section 2: Execution Protocol").
 * @throws RuntimeError `network` with the plugin's name and words
 */
export async function addNetwork(config: CniConfig, call: CniCall): Promise<CniResult> {
  const words = await runPlugin("ADD", config, call);
  const result = resultSchema.safeParse(parseJson(words));
  if (result.success) return result.data;
  throw pluginError(config.type, "it gave an answer that is no CNI result");
}

/** Undoes {@link addNetwork}, also when only a part of it, or nothing, is there. */
export async function removeNetwork(config: CniConfig, call: CniCall): Promise<void> {
  await runPlugin("DEL", config, call);
}

/** @throws RuntimeError `network` when no folder has the plugin */
export function findPlugin(type: string, folders: readonly string[]): string {
  const found = folders.map((folder) => join(folder, type)).find(isProgram);
  if (found !== undefined) return found;
  throw new RuntimeError(
    "network",
    `the CNI plugin ${type} is not in ${folders.join(" or ")}: containernetworking-plugins is not installed`,
    {
      next: "Install Debian's containernetworking-plugins on the worker, or run with --network none.",
    },
  );
}

async function runPlugin(command: "ADD" | "DEL", config: CniConfig, call: CniCall): Promise<string> {
  const program = findPlugin(config.type, call.pluginFolders);
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: call.containerId,
    CNI_NETNS: call.namespace,
    CNI_IFNAME: containerInterface,
    CNI_PATH: call.pluginFolders.join(":"),
  };
  const stdin = JSON.stringify({ cniVersion, ...config });
  const { exitCode, stdout, stderr } = await tryRun([program], {
    env,
    stdin,
    timeoutMs: pluginTimeoutMs,
  }).catch((error: unknown) => {
    throw pluginError(config.type, messageOf(error));
  });
  if (exitCode === 0) return stdout;
  const failure = failureSchema.safeParse(parseJson(stdout));
  const words = failure.success ? [failure.data.msg, failure.data.details] : [stdout, stderr];
  throw pluginError(config.type, words.filter(Boolean).join("; ").trim().slice(-2000));
}

function pluginError(type: string, words: string): RuntimeError {
  const full = /no IP addresses available/i.test(words);
  return new RuntimeError(
    "network",
    `the CNI plugin ${type} failed: ${words || "it gave no reason"}`,
    full
      ? { next: "Stop some containers of this worker, or give it a larger worker.network.subnet." }
      : { next: "See `oci-node doctor` on the worker, or run with --network none." },
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
