import { ConnectError, createClient } from "@connectrpc/connect";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { command, words } from "./action.ts";
import { connectTransport } from "./context.ts";
import { exitCodeOf } from "./exit-code.ts";
import { describeFailure } from "./failure.ts";
import { Session } from "./session.ts";
import { hasEnded } from "./shape.ts";
import { type Containers, watchUntil } from "./watch-container.ts";

interface Ways {
  readonly interactive: boolean;
  readonly tty: boolean;
}

/** @throws CliError `usage` where a terminal is asked for, and standard input is none */
export function assertTerminal({ interactive, tty }: Ways): void {
  Session.assertTerminal({ stdin: interactive, terminal: tty });
}

/** Of a container's standard input and terminal. Signals stop it, as without one. */
export function sessionOf({ interactive, tty }: Ways): Session {
  return new Session({ stdin: interactive, terminal: tty, signals: false });
}

/** Joins a container until it ends. False: it has ended already. */
export async function join(
  containers: Containers,
  session: Session,
  { id, fromBeginning }: { readonly id: string; readonly fromBeginning: boolean },
): Promise<boolean> {
  async function* requests() {
    const start = { id, fromBeginning, size: Session.size() };
    yield { input: { message: { case: "start" as const, value: start } } };
    for await (const message of session.input()) if (message.case !== "signal") yield { input: { message } };
  }
  try {
    for await (const { output } of containers.attachContainer(requests())) {
      const message = output?.message;
      if (message?.case !== undefined) await session.write(message.case, message.value);
    }
  } catch (thrown) {
    if (describeFailure(ConnectError.from(thrown)).code === "not_running") return false;
    throw thrown;
  }
  return true;
}

export const attach = command<{ json: boolean }, [string]>({
  brief: "Join a running container: its standard input and terminal, and its output from now on",
  fullDescription:
    "What can be joined is what the container was run with: -i for standard input, -t for a terminal. Ctrl-C goes to a terminal; " +
    "without one it leaves the container as it is. The exit code is the container's.",
  positional: words({ placeholder: "ID", brief: "Container: its name, its id, or the beginning of one" }),
  async run(_, given) {
    const containers = createClient(ContainerService, connectTransport());
    const { container } = await containers.getContainer({ id: given });
    const id = container?.id ?? given;
    const { stdin = false, terminal = false } = container?.options ?? {};
    const ways = { interactive: stdin, tty: terminal && process.stdin.isTTY === true };
    const session = sessionOf(ways);
    try {
      await join(containers, session, { id, fromBeginning: false });
    } finally {
      session.close();
    }
    return exitCodeOf(await watchUntil(containers, id, hasEnded));
  },
});
