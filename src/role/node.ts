import { chmodSync, existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { formatJoinToken, type JoinToken, parseJoinToken } from "../cluster/join-token.ts";
import { type Config, ConfigError } from "../config.ts";
import { preferThisThread } from "../native/process.ts";
import type { Server } from "../rpc/server.ts";
import { removeTorn, writeFileAtomic } from "../std/atomic-file.ts";
import { errnoOf, messageOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { PrivateFileError, readPrivateFile } from "../std/private-file.ts";
import { type BootstrapTokens, bootstrapTokens } from "./bootstrap-tokens.ts";
import type { ControlPlane } from "./control-plane.ts";
import type { Succeed } from "./former-worker.ts";
import type { RoleName } from "./role-name.ts";
import type { WorkerRole } from "./worker.ts";
import { openWorkerStores } from "./worker-stores.ts";

const log = logger("node");

export type { RoleName } from "./role-name.ts";

/** One process with the roles that it was given. */
export interface Node {
  /** Of the gateway, when this process has one. */
  readonly url: string | undefined;
  /** Only where this process has a gateway. */
  readonly tokens: BootstrapTokens | undefined;
  /** The key-encryption key that this start made, if it made one. */
  readonly madeKeyFile: string | undefined;
  /** Ends the roles, the worker first, and the embedded database last. */
  close(): Promise<void>;
  /** As {@link close}, but containers and what they read stay, for the next process: this one is to exit now. */
  leave(): Promise<void>;
}

interface Closer {
  close(): Promise<void>;
  leave?(): Promise<void>;
}

/**
 * Starts the roles in the order in which they need each other. When one fails, those before it are ended again; what the
 * process before this one mounted stays with its holder, and the process must exit.
 */
export async function startNode(
  config: Config,
  roles: ReadonlySet<RoleName>,
  options: {
    readonly signal: AbortSignal;
    /** Variables that may hold a key-encryption key; only `dev` has some. */
    readonly env?: Readonly<Record<string, string | undefined>>;
  },
): Promise<Node> {
  preferThisThread();
  makeDataDir(config.data_dir);
  const closers: Closer[] = [];
  const end = async (how: (closer: Closer) => Promise<void>) => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) {
      await how(closer).catch((error) =>
        log.error("a role did not end cleanly", { error: messageOf(error) }),
      );
    }
  };
  const close = () => end((closer) => closer.close());
  const leave = () => end((closer) => closer.leave?.() ?? closer.close());
  try {
    // First of all, before the roles are even loaded: programs in containers wait when the process before this one died.
    const stores = roles.has("worker") ? await openWorkerStores(config) : undefined;
    let plane: ControlPlane | undefined;
    let madeKeyFile: string | undefined;
    let url: string | undefined;
    let tokens: BootstrapTokens | undefined;
    let schedulerServer: Server | undefined;
    let worker: WorkerRole | undefined;
    if (roles.has("gateway") || roles.has("scheduler")) {
      const { openControlPlane } = await import("./control-plane.ts");
      plane = await openControlPlane(config, options.signal, {
        roles: [...roles],
        env: options.env,
        onMade: (path) => {
          madeKeyFile = path;
        },
      });
      closers.push(plane);
    }
    if (plane !== undefined && roles.has("gateway")) {
      const { startGateway } = await import("./gateway.ts");
      const gateway = await startGateway(config, plane, {
        keepLayers: config.worker.cache_on_build ?? roles.has("worker"),
        localWorker: () => worker,
      });
      closers.push(gateway);
      url = gateway.server.url;
      tokens = await bootstrapTokens(config, plane);
      await tellOfUnknownWorkspaces(config, plane);
    }
    if (plane !== undefined && roles.has("scheduler")) {
      const { startScheduler } = await import("./scheduler.ts");
      const scheduler = await startScheduler(config, plane);
      closers.push(scheduler);
      schedulerServer = scheduler.server;
      await keepJoinToken(config, plane);
    }
    options.signal.throwIfAborted();
    if (stores !== undefined) {
      const { startWorker } = await import("./worker.ts");
      worker = await startWorker(config, stores, {
        schedulerUrl: schedulerServer?.url ?? requireSchedulerUrl(config),
        token: () => readJoinToken(config),
        signal: options.signal,
        succeed: schedulerServer && plane && succeedBy(plane),
      });
      closers.push(worker);
    }
    return { url, tokens, madeKeyFile, close, leave };
  } catch (error) {
    await close();
    throw error;
  }
}

function succeedBy({ formerWorkers }: ControlPlane): Succeed {
  return (formerId, workerId) => formerWorkers.succeed(formerId, workerId);
}

/** The embedded database runs as a user of its own, who must be able to pass through; what is private has its own mode. */
function makeDataDir(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o755 });
    const { mode } = statSync(path);
    if ((mode & 0o001) === 0) chmodSync(path, (mode & 0o7777) | 0o001);
  } catch (error) {
    throw new ConfigError("unreadable", `data folder ${path}: ${errnoOf(error) ?? messageOf(error)}`, {
      next: "Choose another one with --data-dir, or run as root.",
    });
  }
}

/** A name that is written wrong allows nothing to anybody, in silence. */
async function tellOfUnknownWorkspaces(config: Config, { workspaces }: ControlPlane): Promise<void> {
  const known = new Set((await workspaces.list()).map(({ name }) => name));
  for (const workspace of Object.keys(config.workspaces).filter((name) => !known.has(name)))
    log.warn("the configuration speaks of a workspace that there is not", { workspace, there: [...known] });
}

const joinTokenRule = { holds: "the token that lets workers join", groupMayRead: true };

function joinTokenPath(config: Config): string {
  return config.worker.token_file ?? join(config.data_dir, "join-token");
}

/** Workers join with the token in this file; it is made once, for root's eyes. */
async function keepJoinToken(config: Config, { tokens, authorities }: ControlPlane): Promise<void> {
  const path = joinTokenPath(config);
  await removeTorn(path);
  const [bare = ""] = existsSync(path) ? readPrivateFile(path, joinTokenRule).trim().split(".") : [];
  const counts = (await tokens.verify(bare))?.role === "worker";
  const token = counts ? bare : (await tokens.create({ role: "worker", name: "join token" })).token;
  const text = `${formatJoinToken(token, authorities.trusted)}\n`;
  if (!counts || readFileSync(path, "utf8") !== text) await writeFileAtomic(path, text, 0o600);
}

function readJoinToken(config: Config): JoinToken {
  const path = joinTokenPath(config);
  let text: string;
  try {
    text = readPrivateFile(path, joinTokenRule);
  } catch (error) {
    if (error instanceof PrivateFileError) throw error;
    throw new ConfigError("unreadable", `worker: no join token: ${path} cannot be read`, {
      next: "Put what `oci-node token create --role worker` prints into a file, and name it with worker.token_file.",
    });
  }
  return parseJoinToken(text, path);
}

function requireSchedulerUrl(config: Config): string {
  if (config.worker.scheduler_url !== undefined) return config.worker.scheduler_url;
  throw new ConfigError("invalid", "worker.scheduler_url is missing: a worker must know its scheduler", {
    next: 'Set it in the configuration: scheduler_url = "https://scheduler.example:7071"',
  });
}
