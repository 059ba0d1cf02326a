import { type Config, makeConfig, readSettings, type Settings } from "../config.ts";
import type { Node, RoleName } from "../role/node.ts";
import { configureLog } from "../std/log.ts";
import { command } from "./action.ts";
import { writeContext } from "./context.ts";
import { note, printJson, printLine } from "./output.ts";
import { serveUntilSignal } from "./serve.ts";
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

const allRoles: ReadonlySet<RoleName> = new Set(["gateway", "scheduler", "worker"]);

export const dev = command<DevFlags>({
  brief: "Run one node with every role in this process",
  fullDescription:
    "Prints `ready URL` when it serves, and writes the URL and its tokens to $XDG_CONFIG_HOME/oci-node/context.json, which " +
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
      if (node.url === undefined || node.tokens === undefined) return;
      if (node.madeKeyFile !== undefined) noteNewKey(node.madeKeyFile, flags);
      const { owner: token, admin: adminToken } = node.tokens;
      const path = await writeContext({ url: config.gateway.url ?? node.url, token, adminToken });
      if (flags.json) printJson({ ready: node.url, context: path });
      else printLine(`ready ${node.url}`);
    };
    return await serveUntilSignal(config, allRoles, onReady, { json: flags.json, env: process.env });
  },
});

/** Told before it can happen: a lost key cannot be had back. */
function noteNewKey(path: string, { config, dataDir }: DevFlags): void {
  const where = [config && ` --config ${config}`, dataDir && ` --data-dir ${dataDir}`];
  note(
    `note: made the key file ${path}: without it no stored secret can be opened, and nobody can make it again`,
  );
  note(
    `      keep a copy apart from the data: oci-node key export${where.map((flag) => flag ?? "").join("")} --to FILE`,
  );
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
