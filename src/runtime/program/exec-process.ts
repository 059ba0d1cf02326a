import { z } from "zod";
import { RuntimeError } from "../error.ts";
import { resolveUser } from "../files/user.ts";

/** A terminal's size, in characters. */
export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

/** A program to run in a container beside its own. */
export interface ExecRequest {
  readonly command: readonly string[];
  /** On top of the container's. */
  readonly env: Readonly<Record<string, string>>;
  /** Empty: the container's. */
  readonly workingDirectory: string;
  /** As an image's `User`, by the container's files as they are now; empty: the container's. */
  readonly user: string;
  /** Standard input, output and error are a terminal. */
  readonly terminal: boolean;
  readonly size: TerminalSize;
}

const environmentMax = 1000;
const wordsMax = 10_000;
const defaultTerm = "xterm";

/** What of the container's own `process` (runtime specification, `config.md`) is looked at; the rest is taken as it is. */
const containerProcess = z.looseObject({
  env: z.array(z.string()),
  cwd: z.string(),
  capabilities: z.looseObject({ bounding: z.array(z.string()) }),
});

/**
 * The `process` of a program in a container: the container's own (rights, limits, environment) with what the request says
 * in its place.
 *
 * @param bundle the container's `config.json`
 * @param root the container's root file system
 * @throws RuntimeError `bad_config`, `bad_user`
 */
export async function execProcess(bundle: string, root: string, request: ExecRequest): Promise<object> {
  checkRequest(request);
  const own = containerProcess.parse((JSON.parse(bundle) as { process: unknown }).process);
  const user = request.user === "" ? undefined : await resolveUser(root, request.user);
  const { terminal, size } = request;
  const env = new Map(own.env.map(splitVariable));
  if (terminal && !env.has("TERM")) env.set("TERM", defaultTerm);
  if (user !== undefined) env.set("HOME", user.home);
  for (const [name, value] of Object.entries(request.env)) env.set(name, value);
  return {
    ...own,
    terminal,
    ...(terminal ? { consoleSize: { height: size.rows, width: size.columns } } : { consoleSize: undefined }),
    args: request.command,
    env: [...env].map(([name, value]) => `${name}=${value}`),
    cwd: request.workingDirectory === "" ? own.cwd : request.workingDirectory,
    ...(user === undefined
      ? {}
      : {
          user: { uid: user.uid, gid: user.gid, additionalGids: user.additionalGids, umask: 0o022 },
          capabilities: capabilitiesOf(user.uid, own.capabilities.bounding),
        }),
  };
}

/** As the container's own process: none but root's hold any, all are bounded alike. */
function capabilitiesOf(uid: number, bounding: readonly string[]): object {
  const held = uid === 0 ? bounding : [];
  return { bounding, effective: held, permitted: held, inheritable: [], ambient: [] };
}

function splitVariable(entry: string): [string, string] {
  const at = entry.indexOf("=");
  return [entry.slice(0, at), entry.slice(at + 1)];
}

function checkRequest({ command, env, workingDirectory, user, size }: ExecRequest): void {
  if (command.length === 0 || command[0] === "") throw bad("no program was named");
  if (command.length > wordsMax) throw bad(`the command has more than ${wordsMax} words`);
  if (Object.keys(env).length > environmentMax)
    throw bad(`there are more than ${environmentMax} environment variables`);
  for (const [name, value] of Object.entries(env))
    if (name === "" || name.includes("=") || `${name}${value}`.includes("\0"))
      throw bad(`${JSON.stringify(name.slice(0, 100))} cannot be an environment variable`);
  if ([...command, workingDirectory, user].some((word) => word.includes("\0")))
    throw bad("a word of the command, the working directory or the user has a NUL in it");
  if (workingDirectory !== "" && !workingDirectory.startsWith("/"))
    throw bad(`the working directory ${JSON.stringify(workingDirectory.slice(0, 200))} is not absolute`);
  checkSize(size);
}

/** @throws RuntimeError `bad_config` */
export function checkSize({ rows, columns }: TerminalSize): void {
  for (const count of [rows, columns])
    if (!Number.isInteger(count) || count < 0 || count > 65_535)
      throw bad("a terminal's size must be from 0 to 65535 rows and columns");
}

function bad(message: string): RuntimeError {
  return new RuntimeError("bad_config", message, {
    next: "See what can be asked for: `oci-node exec --help`.",
  });
}
