import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { WorkerService } from "../gen/oci_node/v1/worker_service_pb.ts";

type Interactive = Pick<
  ServiceImpl<typeof WorkerService>,
  "killContainer" | "execContainer" | "attachContainer"
>;

/** What people do with a running container: programs in it, its standard input, signals. */
export function interactiveMethods(): Interactive {
  const absent = () => new ConnectError("not there yet", Code.Unimplemented);
  return {
    async killContainer() {
      throw absent();
    },
    // biome-ignore lint/correctness/useYield: not there yet
    async *execContainer() {
      throw absent();
    },
    // biome-ignore lint/correctness/useYield: not there yet
    async *attachContainer() {
      throw absent();
    },
  };
}
