import { type Config, ConfigError, makeConfig, readConfig } from "../config.ts";
import { inFile } from "../config-problem.ts";
import { type Node, type RoleName, startNode } from "../role/node.ts";
import { configureLog } from "../std/log.ts";
import { writeContext } from "./context.ts";
import { printFailure } from "./failure.ts";
import { printLine } from "./output.ts";

/** Ends the process but not its containers: the next one, perhaps of another version, goes on with them. */
const handOverSignal = "SIGUSR2";

/** `oci-node --role=…`: the roles named, until a signal. */
export async function runRoles(
  roles: ReadonlySet<RoleName>,
  configPath: string | undefined,
): Promise<number> {
  const config = configPath === undefined ? makeConfig({}) : readConfig(configPath);
  await configureLog(config.log_level);
  return await serveUntilSignal(config, roles, async (node) => {
    if (node.url !== undefined && node.tokens !== undefined) {
      const { owner: token, admin: adminToken } = node.tokens;
      await writeContext({ url: config.gateway.url ?? node.url, token, adminToken });
    }
    // Whoever waited for it uses the context file next.
    printLine(node.url === undefined ? `ready ${[...roles].join(",")}` : `ready ${node.url}`);
  });
}

/** Starts a node and ends it when a signal says so: SIGINT, SIGTERM, or the one that hands it over. Gives the exit code. */
export async function serveUntilSignal(
  config: Config,
  roles: ReadonlySet<RoleName>,
  onReady: (node: Node) => Promise<void>,
  options: { readonly json?: boolean; readonly env?: Readonly<Record<string, string | undefined>> } = {},
): Promise<number> {
  const { json = false, env } = options;
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
  const node = await startNode(config, roles, {
    signal: leaving.signal,
    ...(env === undefined ? {} : { env }),
  }).catch((thrown: unknown) => {
    if (leaving.signal.aborted) process.exit(0);
    // What it took over keeps a process alive, and would keep the next one out.
    process.exit(printFailure(withFile(thrown, config), json));
  });
  await onReady(node);
  if ((await signalled) === handOverSignal) await node.leave();
  else await node.close();
  // Whatever may be left, such as a connection to a container that is gone, must not keep a process that has ended all it had.
  process.exit(0);
}

/** What only the start of a role finds wrong in the settings, such as a role's ARN, names the file as well. */
function withFile(thrown: unknown, { source }: Config): unknown {
  if (!(thrown instanceof ConfigError) || thrown.code !== "invalid") return thrown;
  return new ConfigError(thrown.code, inFile(thrown.message, source), { cause: thrown, next: thrown.next });
}
