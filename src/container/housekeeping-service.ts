import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import type { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";

type Housekeeping = Pick<
  ServiceImpl<typeof ContainerService>,
  "removeContainer" | "streamEvents" | "listVolumes" | "removeVolume"
>;

/** What is looked at and cleared away: events, ended containers, volumes. */
export function housekeepingMethods(): Housekeeping {
  const absent = () => new ConnectError("not there yet", Code.Unimplemented);
  return {
    async removeContainer() {
      throw absent();
    },
    // biome-ignore lint/correctness/useYield: not there yet
    async *streamEvents() {
      throw absent();
    },
    async listVolumes() {
      throw absent();
    },
    async removeVolume() {
      throw absent();
    },
  };
}
