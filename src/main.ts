#!/usr/bin/env bun
import { CliError } from "./cli/context.ts";
import { printFailure } from "./cli/failure.ts";
import { refusedVariable } from "./cli/refused-variable.ts";
import { protectMemory } from "./native/protect.ts";
import { type RoleName, roleNames } from "./role/role-name.ts";

/** As shells have it of a program that SIGPIPE ended. */
const closedPipeExitCode = 141;

const rolesHelp = `USAGE
  oci-node --role=gateway,scheduler,worker [--config FILE]

Runs the roles named in this process until a signal; \`oci-node dev\` is all of them with fewer questions. Prints
\`ready\` when it serves. All else is set in the configuration file (TOML), each setting of which has a default.
SIGTERM ends it with its containers; SIGUSR2 leaves the containers running for the next process.
`;

// Of every process of ours: nodes, commands, and what they start themselves for.
protectMemory();
process.exitCode = await main(process.argv.slice(2));

/** What is not needed is not loaded: the commands take longer to load than a worker to take its readers over. */
async function main(argv: readonly string[]): Promise<number> {
  const refused = refusedVariable(process.env);
  if (refused !== undefined) {
    const next = `Run it without ${refused.name}.`;
    return printFailure(new CliError("usage", `${refused.name} is set: ${refused.why}`, { next }), false);
  }
  // A compiled executable that was called by a link has that link's name here; from sources it is bun's.
  const called = process.argv0;
  if (called.includes("credential")) {
    const { runLinked } = await import("./cli/linked.ts");
    const code = await runLinked(called, argv);
    if (code !== undefined) return code;
  }
  if (argv[0] === "internal") {
    const { runInternal } = await import("./cli/internal.ts");
    return await runInternal(argv.slice(1));
  }
  if (argv.some((word, position) => word.startsWith("--role") && isBeforeCommands(argv, position))) {
    try {
      const parsed = parseRoles(argv);
      if (parsed === undefined) {
        process.stdout.write(rolesHelp);
        return 0;
      }
      const { roles, config } = parsed;
      const { runRoles } = await import("./cli/serve.ts");
      return await runRoles(roles, config);
    } catch (thrown) {
      return printFailure(thrown, false);
    }
  }
  // Whoever reads may leave before the end, as in `oci-node logs ID | head`. A node goes on without a reader.
  if (argv[0] !== "dev") process.stdout.on("error", () => process.exit(closedPipeExitCode));
  else process.stdout.on("error", () => {});
  const words = argv[0] === "help" ? [...argv.slice(1), "--help"] : argv;
  if (words.every((word) => word === "--help" || word === "-h")) {
    process.stdout.write((await import("./cli/overview.ts")).overview());
    return 0;
  }
  const { run } = await import("@stricli/core");
  const { application } = await import("./cli/app.ts");
  const { markProgramWords } = await import("./cli/program-words.ts");
  await run(application, [...markProgramWords(words)], { process: process as never });
  // Stricli's own codes are negative: what it could not parse is wrong usage.
  const code = Number(process.exitCode ?? 0);
  return code === -4 || code === -5 || code === 251 || code === 252 ? 2 : code < 0 ? 1 : code;
}

function isBeforeCommands(argv: readonly string[], position: number): boolean {
  return argv.slice(0, position).every((word, at) => word.startsWith("-") || argv[at - 1] === "--config");
}

interface RolesAndConfig {
  readonly roles: ReadonlySet<RoleName>;
  readonly config: string | undefined;
}

/** undefined: help is asked for. */
function parseRoles(argv: readonly string[]): RolesAndConfig | undefined {
  const roles = new Set<RoleName>();
  let config: string | undefined;
  const words = [...argv];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === "--help" || word === "-h") return undefined;
    const [flag, inline] = splitFlag(word);
    const value = inline ?? words.shift();
    if (value === undefined) throw new CliError("usage", `${flag} needs a value`);
    if (flag === "--config") config = value;
    else if (flag === "--role") for (const name of value.split(",")) roles.add(parseRole(name.trim()));
    else
      throw new CliError("usage", `${flag} is not known beside --role`, { next: "Known: --role, --config." });
  }
  return { roles, config };
}

function splitFlag(word: string): [string, string | undefined] {
  const at = word.indexOf("=");
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function parseRole(name: string): RoleName {
  const role = roleNames.find((known) => known === name);
  if (role === undefined) {
    throw new CliError("usage", `${JSON.stringify(name)} is no role`, {
      next: `Roles: ${roleNames.join(", ")}.`,
    });
  }
  return role;
}
