import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { signalNumber } from "../std/signals.ts";
import type { Container } from "./container.ts";
import { ContainerError } from "./error.ts";
import { toWireContainer } from "./wire-service.ts";
import { streamApart, type WorkerBoot, type WorkerClients, workerFailure } from "./worker-client.ts";

type Interactive = Pick<
  ServiceImpl<typeof ContainerService>,
  "killContainer" | "execContainer" | "attachContainer"
>;

export interface InteractiveDependencies {
  readonly workers: Pick<WorkerClients, "to" | "apart">;
  readonly findWorker: (id: string) => Promise<WorkerBoot | undefined>;
  /** A container of a workspace, by whatever names it. @throws ContainerError `not_found` */
  readonly find: (workspaceId: string, text: string) => Promise<Container>;
}

const sigkill = "SIGKILL";

/** What people do with a running container, handed on to its worker: programs in it, its standard input, signals. */
export function interactiveMethods(dependencies: InteractiveDependencies): Interactive {
  const { workers } = dependencies;
  const running = async (context: HandlerContext, id: string): Promise<[Container, WorkerBoot]> => {
    const container = await dependencies.find(workspaceOf(context), id);
    return [container, await workerOf(dependencies, container)];
  };
  return {
    async killContainer({ id, signal }, context) {
      const number = signalNumber(signal || sigkill);
      if (number === undefined)
        throw new ContainerError("bad_spec", `${JSON.stringify(signal.slice(0, 40))} is no signal`, {
          next: "Give its name or number: SIGTERM, TERM, 15.",
        });
      const [container, worker] = await running(context, id);
      try {
        await workers
          .to(worker)
          .killContainer({ containerId: container.id, signal: number }, { signal: context.signal });
      } catch (error) {
        throw workerFailure(error, worker, `signalling ${container.id}`, context.signal);
      }
      return { container: toWireContainer(container) };
    },
    async *execContainer(requests, context) {
      const inputs = requests[Symbol.asyncIterator]();
      const first = (await inputs.next()).value?.input?.message;
      if (first?.case !== "start")
        throw new ContainerError(
          "bad_spec",
          "the first message does not say what to run, and in which container",
        );
      const [container, worker] = await running(context, first.value.id);
      const start = { ...first.value, id: container.id };
      const { signal } = context;
      const what = `a program in ${container.id}`;
      const outputs = streamApart(workers, worker, what, signal, (client) =>
        client.execContainer(handOn(start, inputs), { signal }),
      );
      for await (const { output } of outputs) if (output !== undefined) yield { output };
    },
    async *attachContainer(requests, context) {
      const inputs = requests[Symbol.asyncIterator]();
      const first = (await inputs.next()).value?.input?.message;
      if (first?.case !== "start")
        throw new ContainerError("bad_spec", "the first message does not name a container");
      const [container, worker] = await running(context, first.value.id);
      const { signal } = context;
      const what = `attaching to ${container.id}`;
      const outputs = streamApart(workers, worker, what, signal, (client) =>
        client.attachContainer(handOn({ ...first.value, id: container.id }, inputs), { signal }),
      );
      for await (const { output } of outputs) if (output !== undefined) yield { output };
    },
  };
}

/** What the caller sends, with the container's whole id in place of what he calls it by. */
async function* handOn<Start, Input>(
  start: Start,
  inputs: AsyncIterator<{ readonly input?: Input | undefined }>,
) {
  yield { input: { message: { case: "start" as const, value: start } } };
  for (let next = await inputs.next(); next.done !== true; next = await inputs.next()) {
    const { input } = next.value;
    if (input !== undefined) yield { input };
  }
}

/** The worker of a container that runs. @throws ContainerError `not_running`, `worker_away` */
async function workerOf(
  { findWorker }: InteractiveDependencies,
  { id, state, workerId }: Container,
): Promise<WorkerBoot> {
  if (state !== "running" && state !== "stopping")
    throw new ContainerError("not_running", `container ${id} does not run: it is ${state}`, {
      next: `See more: oci-node inspect ${id}`,
    });
  const worker = workerId === undefined ? undefined : await findWorker(workerId);
  if (worker !== undefined) return worker;
  throw new ContainerError("worker_away", `container ${id} is on worker ${workerId ?? "-"}, which is gone`, {
    next: `See more: oci-node inspect ${id}`,
  });
}
