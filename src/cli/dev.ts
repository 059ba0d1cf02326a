import { type Config, makeConfig, readConfig, readSettings, type Settings } from "../config.ts";
import { type Node, type RoleName, startNode } from "../role/node.ts";
import { configureLog } from "../std/log.ts";
import { command } from "./action.ts";
import { writeContext } from "./context.ts";
import { printFailure } from "./failure.ts";
import { printJson, printLine } from "./output.ts";
import { standaloneFlags } from "./standalone.ts";

interface DevFlags {
  readonly json: boolean;
  readonly config?: string;
  readonly dataDir?: string;
  readonly listen?: string;
  readonly databaseUrl?: string;
  readonly insecureRegistry?: readonly string[];
  readonly logLevel?: "debug" | "info" | "warning" | "error";
}

/** Ends the process but not its containers: the next one, perhaps of another version, goes on with them. */
const handOverSignal = "SIGUSR2";

const allRoles: ReadonlySet<RoleName> = new Set(["gateway", "scheduler", "worker"]);

export const dev = command<DevFlags>({
  brief: "Run one node with every role in this process",
  fullDescription:
    "Prints `ready URL` when it serves, and writes the URL and a token to $XDG_CONFIG_HOME/oci-node/context.json, which " +
    "the other commands read. Ctrl-C stops the containers and leaves nothing mounted; SIGUSR2 leaves the containers " +
    "running for the next process.",
  flags: {
    config: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Configuration file (TOML)",
      placeholder: "FILE",
    },
    dataDir: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Where everything is kept (default /var/lib/oci-node)",
      placeholder: "DIR",
    },
    listen: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Address of the gateway (default 127.0.0.1:7070; port 0: any free one)",
      placeholder: "HOST:PORT",
    },
    databaseUrl: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "PostgreSQL to use in place of the one inside",
      placeholder: "URL",
    },
    insecureRegistry: standaloneFlags.insecureRegistry,
    logLevel: {
      kind: "enum",
      values: ["debug", "info", "warning", "error"],
      optional: true,
      brief: "Least level of log lines (default info)",
    },
  },
  async run(flags) {
    const config = withFlags(flags);
    await configureLog(config.log_level);
    const onReady = async (node: Node) => {
      if (node.url === undefined || node.ownerToken === undefined) return;
      const path = await writeContext({ url: node.url, token: node.ownerToken });
      if (flags.json) printJson({ ready: node.url, context: path });
      else printLine(`ready ${node.url}`);
    };
    return await serveUntilSignal(config, allRoles, onReady, flags.json);
  },
});

/** `oci-node --role=…`: the roles named, until a signal. */
export async function runRoles(
  roles: ReadonlySet<RoleName>,
  configPath: string | undefined,
): Promise<number> {
  const config = configPath === undefined ? makeConfig({}) : readConfig(configPath);
  await configureLog(config.log_level);
  return await serveUntilSignal(config, roles, async (node) => {
    printLine(node.url === undefined ? `ready ${[...roles].join(",")}` : `ready ${node.url}`);
    if (node.url !== undefined && node.ownerToken !== undefined) {
      await writeContext({ url: node.url, token: node.ownerToken });
    }
  });
}

function withFlags(flags: DevFlags): Config {
  const base: Settings = flags.config === undefined ? {} : readSettings(flags.config);
  const settings: Settings = {
    ...base,
    ...(flags.dataDir === undefined ? {} : { data_dir: flags.dataDir }),
    ...(flags.logLevel === undefined ? {} : { log_level: flags.logLevel }),
    ...(flags.databaseUrl === undefined ? {} : { database: { url: flags.databaseUrl } }),
    ...(flags.listen === undefined ? {} : { gateway: { ...base.gateway, listen: flags.listen } }),
    scheduler: { listen: "127.0.0.1:0", ...base.scheduler },
    ...(flags.insecureRegistry === undefined
      ? {}
      : {
          registry: {
            ...base.registry,
            insecure: [...(base.registry?.insecure ?? []), ...flags.insecureRegistry],
          },
        }),
  };
  return makeConfig(settings, flags.config);
}

async function serveUntilSignal(
  config: Config,
  roles: ReadonlySet<RoleName>,
  onReady: (node: Node) => Promise<void>,
  json = false,
): Promise<number> {
  const leaving = new AbortController();
  const signalled = new Promise<NodeJS.Signals>((resolve) => {
    const end = (signal: NodeJS.Signals) => {
      leaving.abort();
      resolve(signal);
    };
    process.once("SIGINT", end);
    process.once("SIGTERM", end);
    process.once(handOverSignal, resolve);
  });
  const node = await startNode(config, roles, { signal: leaving.signal }).catch((thrown: unknown) => {
    // What it took over keeps a process alive, and would keep the next one out.
    process.exit(printFailure(thrown, json));
  });
  await onReady(node);
  if ((await signalled) === handOverSignal) {
    await node.leave();
    process.exit(0);
  }
  await node.close();
  return 0;
}
