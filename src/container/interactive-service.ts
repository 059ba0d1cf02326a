import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";

type Interactive = Pick<
  ServiceImpl<typeof ContainerService>,
  "killContainer" | "execContainer" | "attachContainer"
>;

/** What people do with a running container, handed on to its worker: programs in it, its standard input, signals. */
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
