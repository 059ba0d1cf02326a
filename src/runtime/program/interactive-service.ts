import type { ServiceImpl } from "@connectrpc/connect";
import type { AttachInput, ExecInput, ExecStart } from "../../gen/oci_node/v1/container_service_pb.ts";
import type { WorkerService } from "../../gen/oci_node/v1/worker_service_pb.ts";
import { signalNumber } from "../../std/signals.ts";
import { RuntimeError } from "../error.ts";
import type { HeldContainer } from "../held-container.ts";
import type { Worker } from "../worker.ts";
import type { Attachment } from "./attach.ts";
import { type ExecProcess, notRunning } from "./exec.ts";
import type { ExecRequest } from "./exec-process.ts";

type Interactive = Pick<
  ServiceImpl<typeof WorkerService>,
  "killContainer" | "execContainer" | "attachContainer"
>;

const stdinBytesMax = 256 * 1024;

/** What people do with a running container: programs in it, its standard input, signals. */
export function interactiveMethods(worker: Worker): Interactive {
  const held = (id: string): HeldContainer => {
    const found = worker.find(id);
    if (found === undefined) throw notRunning(id);
    return found;
  };
  return {
    async killContainer({ containerId, signal }) {
      await held(containerId).signal(signal);
      return {};
    },
    async *execContainer(requests, context) {
      const inputs = requests[Symbol.asyncIterator]();
      const first = (await inputs.next()).value?.input?.message;
      if (first?.case !== "start") throw badInput("the first message does not say what to run");
      const exec = await held(first.value.id).exec(fromWireExec(first.value));
      const leave = () => void exec.leave();
      context.signal.addEventListener("abort", leave);
      if (context.signal.aborted) leave();
      let failure: unknown;
      take(inputs, exec).catch((error: unknown) => {
        failure = error;
        leave();
      });
      try {
        for await (const { stream, data } of exec.output)
          yield { output: { message: { case: stream, value: data as Uint8Array<ArrayBuffer> } } };
        const { exitCode, signal = "", oomKilled } = await exec.ended;
        if (failure !== undefined) throw failure;
        yield { output: { message: { case: "end", value: { exitCode, signal, oomKilled } } } };
      } finally {
        context.signal.removeEventListener("abort", leave);
        await exec.leave();
      }
    },
    async *attachContainer(requests, context) {
      const inputs = requests[Symbol.asyncIterator]();
      const first = (await inputs.next()).value?.input?.message;
      if (first?.case !== "start") throw badInput("the first message does not name a container");
      const { id, size, fromBeginning } = first.value;
      const attachment = held(id).attach();
      const gone = new AbortController();
      const signal = AbortSignal.any([context.signal, gone.signal]);
      const part = fromBeginning ? {} : { tail: 0 };
      let failure: unknown;
      try {
        if (size !== undefined) await attachment.resize(size);
        takeAttached(inputs, attachment).catch((error: unknown) => {
          failure = error;
          gone.abort();
        });
        for await (const { stream, data } of worker.logs(id, true, part, signal))
          yield { output: { message: { case: stream, value: data as Uint8Array<ArrayBuffer> } } };
        if (failure !== undefined) throw failure;
      } finally {
        gone.abort();
        await attachment.close();
      }
    },
  };
}

/** Gives a container what the caller sends it, until no more comes. */
async function takeAttached(
  inputs: AsyncIterator<{ readonly input?: AttachInput | undefined }>,
  attachment: Attachment,
): Promise<void> {
  for (let next = await inputs.next(); next.done !== true; next = await inputs.next()) {
    const message = next.value.input?.message;
    if (message?.case === "stdin") await attachment.write(checkedStdin(message.value));
    else if (message?.case === "stdinClosed") await attachment.closeInput();
    else if (message?.case === "resize") await attachment.resize(message.value);
    else if (message?.case === "start") throw badInput("there is a second message that names a container");
  }
}

/** Gives a program what the caller sends it, until no more comes. */
async function take(
  inputs: AsyncIterator<{ readonly input?: ExecInput | undefined }>,
  exec: ExecProcess,
): Promise<void> {
  for (let next = await inputs.next(); next.done !== true; next = await inputs.next()) {
    const message = next.value.input?.message;
    if (message?.case === "stdin") await exec.write(checkedStdin(message.value));
    else if (message?.case === "stdinClosed") exec.closeInput();
    else if (message?.case === "resize") exec.resize(message.value);
    else if (message?.case === "signal") exec.signal(signalOf(message.value));
    else if (message?.case === "start") throw badInput("there is a second message that says what to run");
  }
}

function checkedStdin(data: Uint8Array): Uint8Array {
  if (data.length > stdinBytesMax)
    throw badInput(`a message has more than ${stdinBytesMax} bytes of standard input`);
  return data;
}

function fromWireExec(start: ExecStart): ExecRequest {
  const { command, env, workingDirectory, user, terminal, size } = start;
  return {
    command,
    env,
    workingDirectory,
    user,
    terminal,
    size: { rows: size?.rows ?? 0, columns: size?.columns ?? 0 },
  };
}

function signalOf(text: string): number {
  const number = signalNumber(text);
  if (number === undefined) throw badInput(`${JSON.stringify(text.slice(0, 40))} is no signal`);
  return number;
}

function badInput(message: string): RuntimeError {
  return new RuntimeError("bad_config", message);
}
