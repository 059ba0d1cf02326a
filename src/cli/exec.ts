import { createClient } from "@connectrpc/connect";
import {
  ContainerService,
  ContainerState,
  type ExecEnd,
  type ExecStart,
} from "../gen/oci_node/v1/container_service_pb.ts";
import { command } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { describeFailure, printFailure } from "./failure.ts";
import { note } from "./output.ts";
import { Session } from "./session.ts";
import { stateName } from "./shape.ts";
import { parseVariable, variablesOf } from "./variable.ts";
import { type Containers, watchUntil } from "./watch-container.ts";

interface ExecFlags {
  readonly json: boolean;
  readonly interactive: boolean;
  readonly tty: boolean;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly user?: string;
}

/** What a program that could not be started makes the command exit with, as shells and `docker exec` do. */
const exitCodes: Readonly<Record<string, number>> = { permission: 126, command_not_found: 127 };
const notStartedExitCode = 125;
const usageExitCode = 2;
const onItsWay: readonly ContainerState[] = [
  ContainerState.PENDING,
  ContainerState.SCHEDULED,
  ContainerState.PREPARING,
];
/** After this, somebody who waits is told what for. */
const silentWaitMs = 1000;

export const execFlags = {
  interactive: { kind: "boolean", default: false, brief: "Pass standard input on" },
  tty: { kind: "boolean", default: false, brief: "Give the program a terminal" },
  env: {
    kind: "parsed",
    parse: parseVariable,
    optional: true,
    variadic: true,
    brief: "Environment variable; without a value, the caller's",
    placeholder: "K=V",
  },
  workdir: { kind: "parsed", parse: String, optional: true, brief: "Working directory", placeholder: "DIR" },
  user: {
    kind: "parsed",
    parse: String,
    optional: true,
    brief: "User, by name or number, with :GROUP if wanted",
    placeholder: "USER",
  },
} as const;

export const execAliases = { i: "interactive", t: "tty", e: "env", w: "workdir", u: "user" } as const;

export const exec = command<ExecFlags, string[]>({
  brief: "Run a program in a running container",
  fullDescription:
    "A container that has yet to start is waited for. Output and exit code are the program's: 125 when the container does not run, 126 when the program may not be executed, " +
    "127 when it is not there. Signals go to the program; with -t, what is typed does. It ends when this command does. " +
    "Options come before ID: what follows ID is the program and its arguments.",
  flags: execFlags,
  aliases: execAliases,
  positional: {
    kind: "array",
    parameter: { parse: String, placeholder: "ID CMD…", brief: "Container, then the program" },
    minimum: 2,
  },
  async run(flags, id = "", ...argv) {
    let session: Session | undefined;
    try {
      const ways = { stdin: flags.interactive, terminal: flags.tty, signals: true };
      Session.assertTerminal(ways);
      const containers = createClient(ContainerService, connectTransport());
      await untilItRuns(containers, id);
      session = new Session(ways);
      const { exitCode, oomKilled } = await execute(containers, session, {
        id,
        command: argv.filter((word) => word !== undefined),
        env: variablesOf(flags.env ?? []),
        workingDirectory: flags.workdir ?? "",
        user: flags.user ?? "",
        terminal: flags.tty,
        size: Session.size(),
      });
      if (oomKilled)
        note(`oci-node: the program was ended: container ${id} had used all the memory that it may have`);
      return exitCode;
    } catch (thrown) {
      session?.close();
      if (printFailure(thrown, flags.json) === usageExitCode) return usageExitCode;
      return exitCodes[describeFailure(thrown).code] ?? notStartedExitCode;
    } finally {
      session?.close();
    }
  },
});

type Start = Omit<ExecStart, "$typeName" | "$unknown" | "size"> & {
  readonly size: { rows: number; columns: number };
};

/** `run -d` returns before its container runs: what follows it in a script need not wait for that by itself. */
async function untilItRuns(containers: Containers, id: string): Promise<void> {
  const { container } = await containers.getContainer({ id });
  if (container === undefined || !onItsWay.includes(container.state)) return;
  const told = setTimeout(
    () => note(`oci-node: container ${id} is ${stateName(container.state)}; waiting until it runs`),
    silentWaitMs,
  );
  await watchUntil(containers, container.id, ({ state }) => !onItsWay.includes(state)).finally(() =>
    clearTimeout(told),
  );
}

async function execute(containers: Containers, session: Session, start: Start): Promise<ExecEnd> {
  async function* requests() {
    yield { input: { message: { case: "start" as const, value: start } } };
    for await (const message of session.input()) yield { input: { message } };
  }
  let end: ExecEnd | undefined;
  for await (const { output } of containers.execContainer(requests())) {
    const message = output?.message;
    if (message?.case === "stdout" || message?.case === "stderr")
      await session.write(message.case, message.value);
    if (message?.case !== "end") continue;
    end = message.value;
    session.close();
  }
  if (end !== undefined) return end;
  throw new CliError("failed", "the connection to the node was lost; the program is ended", {
    next: `See how the container is: oci-node inspect ${start.id}`,
  });
}
