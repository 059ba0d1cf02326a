import { ConnectError, createClient } from "@connectrpc/connect";
import {
  type Container,
  ContainerService,
  ContainerState,
  LogStream,
} from "../gen/oci_node/v1/container_service_pb.ts";
import { command } from "./action.ts";
import { assertTerminal, join, sessionOf } from "./attach.ts";
import { buildFlags } from "./build.ts";
import {
  containerRequest,
  type SoleContainerFlags,
  soleContainerAliases,
  soleContainerFlags,
} from "./container-flags.ts";
import { CliError, connectTransport } from "./context.ts";
import { type CredentialFlags, credentialFlags, identityFlag } from "./credentials.ts";
import { exitCodeOf } from "./exit-code.ts";
import { printFailure } from "./failure.ts";
import { note, printJson, printLine } from "./output.ts";
import { notStartedExitCode } from "./remove.ts";
import type { Session } from "./session.ts";
import { containerShape, hasEnded } from "./shape.ts";
import { type Containers, watchUntil } from "./watch-container.ts";
import { withImage } from "./with-image.ts";

interface RunFlags extends CredentialFlags, SoleContainerFlags {
  readonly json: boolean;
  readonly detach: boolean;
  readonly eager: boolean;
  readonly rm: boolean;
  readonly secret?: string;
}

/** 128 and SIGINT, as shells say it. */
const interruptedExitCode = 130;

export const runFlags = {
  ...credentialFlags,
  ...identityFlag,
  secret: buildFlags.secret,
  eager: { kind: "boolean", default: false, brief: "Fetch the whole image before the start" },
  detach: { kind: "boolean", default: false, brief: "Print the container's id and return" },
  rm: { kind: "boolean", default: false, brief: "Remove the container when it has ended" },
  ...soleContainerFlags,
} as const;

export const runAliases = { d: "detach", ...soleContainerAliases } as const;

export const run = command<RunFlags, string[]>({
  brief: "Run a container of an image",
  fullDescription:
    "In the foreground the output and the exit code are the container's; Ctrl-C stops it, a second one kills it, a third leaves it. What follows IMAGE replaces the " +
    "image's command. With -i standard input is the container's; with -t also the terminal is, to which Ctrl-C then goes. A container that could not be made or started gives exit code 125. A reference that was never built is " +
    "built first, and with credentials any reference is, as by `image build`.\n\nEXAMPLES\n" +
    "  oci-node run --rm ghcr.io/acme/tools:1 make report\n" +
    "  oci-node run -d --name web -p 8080:80 -v site:/srv:ro --restart on-failure:5 IMAGE\n" +
    "  oci-node run --rm -it --read-only --tmpfs /tmp --memory 512Mi --secret-env db=DB_PASSWORD IMAGE sh",
  flags: runFlags,
  aliases: runAliases,
  positional: {
    kind: "array",
    parameter: {
      parse: String,
      placeholder: "IMAGE [CMD…]",
      brief: "Image id or reference, then the command",
    },
    minimum: 1,
  },
  async run(flags, image, ...argv) {
    const containers = createClient(ContainerService, connectTransport());
    let container: Container;
    try {
      if (flags.rm && flags.detach) {
        throw new CliError("usage", "--rm is for a container in the foreground", {
          next: "Leave --detach away, or remove the container yourself: `oci-node rm`.",
        });
      }
      if (!flags.detach) assertTerminal(flags);
      container = await queue(containers, flags, image ?? "", argv);
    } catch (thrown) {
      // Not 1, which could be the container's own.
      const code = printFailure(thrown, flags.json);
      return code === 1 ? notStartedExitCode : code;
    }
    if (flags.detach) {
      if (flags.json) printJson(containerShape(container));
      else printLine(container.id);
      return 0;
    }
    const session = flags.interactive || flags.tty ? sessionOf(flags) : undefined;
    const code = await attach(containers, container.id, flags.json, session).finally(() => session?.close());
    if (flags.rm) {
      await containers
        .removeContainer({ id: container.id })
        .catch((error) => note(`oci-node: it was not removed: ${ConnectError.from(error).rawMessage}`));
    }
    return code;
  },
});

/** Asks for a container of an image, which is built before when it has to be. */
async function queue(
  containers: Containers,
  flags: RunFlags,
  text: string,
  argv: readonly string[],
): Promise<Container> {
  const wanted = containerRequest(flags);
  const ask = async (image: string) => {
    const { container } = await containers.runContainer({
      image,
      command: [...argv],
      ...wanted,
      eager: flags.eager,
    });
    if (container === undefined) throw new CliError("failed", "the node made no container");
    return container;
  };
  return await withImage(text, flags, ask);
}

/** Shows a container's output until it has ended, and returns its exit code. */
async function attach(
  containers: Containers,
  id: string,
  json: boolean,
  session: Session | undefined,
): Promise<number> {
  const stopping = stopOnInterrupt(containers, id);
  try {
    const output = followOutput(containers, id, json, session);
    const ended = await watchUntil(containers, id, hasEnded);
    await output;
    session?.close();
    if (json) printJson(containerShape(ended));
    return exitCodeOf(ended);
  } finally {
    stopping.dispose();
  }
}

async function followOutput(
  containers: Containers,
  id: string,
  json: boolean,
  session: Session | undefined,
): Promise<void> {
  let told = "";
  const started = await watchUntil(containers, id, (container) => {
    if (container.state === ContainerState.PENDING && !json) {
      void whyQueued(containers, id).then((why) => {
        if (why !== "" && why !== told) note(`oci-node: container ${id} ${why}`);
        told = why;
      });
    }
    return container.state === ContainerState.RUNNING || hasEnded(container);
  });
  if (started.startedAt === undefined) return;
  try {
    if (session !== undefined && (await join(containers, session, { id, fromBeginning: true }))) return;
    for await (const piece of containers.streamLogs({ id, follow: true })) {
      if (json) continue;
      const out = piece.stream === LogStream.STDERR ? process.stderr : process.stdout;
      if (!out.write(piece.data)) await new Promise((resolve) => out.once("drain", resolve));
    }
  } catch (thrown) {
    // Nothing that is typed comes anywhere now, an interrupt neither: the terminal is its owner's again.
    session?.close();
    note(`oci-node: the output could not be read to its end: ${ConnectError.from(thrown).rawMessage}`);
    const again = session === undefined ? "logs" : "attach";
    note(
      `  The container is waited for. Go on with it by \`oci-node ${again} ${id}\`; Ctrl-C here stops it.`,
    );
  }
}

/** What a container in the queue waits for, as the scheduler said last; empty: nothing was said, or it is gone. */
async function whyQueued(containers: Containers, id: string): Promise<string> {
  const { container } = await containers.getContainer({ id }).catch(() => ({ container: undefined }));
  if (container?.state !== ContainerState.PENDING) return "";
  return container.events.findLast(({ kind }) => kind === "queue")?.message ?? "";
}

/** The first Ctrl-C stops the container, the second kills it, the third leaves it: its worker may be away for long. */
function stopOnInterrupt(containers: Containers, id: string): { dispose(): void } {
  let asked = 0;
  const stop = () => {
    asked += 1;
    if (asked > 2) {
      note(`oci-node: container ${id} has not ended, and is left. See: oci-node inspect ${id}`);
      process.exit(interruptedExitCode);
    }
    const [does, next] = asked === 1 ? ["stopping", "kills"] : ["killing", "leaves"];
    note(`oci-node: ${does} container ${id}; Ctrl-C again ${next} it`);
    containers
      .stopContainer({ id, timeoutMs: asked === 1 ? 0 : 1 })
      .catch((error) => note(`oci-node: ${ConnectError.from(error).rawMessage}`));
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  return {
    dispose() {
      process.off("SIGINT", stop);
      process.off("SIGTERM", stop);
    },
  };
}
