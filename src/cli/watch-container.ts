import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type { Container, ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { CliError } from "./context.ts";
import { hasEnded } from "./shape.ts";

export type Containers = Client<typeof ContainerService>;

/** A container once it is where one waits for it. Throws CliError `failed` when the node or the container is lost meanwhile. */
export async function watchUntil(
  containers: Containers,
  id: string,
  reached: (container: Container) => boolean,
): Promise<Container> {
  const done = new AbortController();
  let last: Container | undefined;
  try {
    for await (const { container } of containers.watchContainer({ id }, { signal: done.signal })) {
      last = container;
      // The stream of one that has ended ends by itself: left in that moment, it may keep its connection, and this process.
      if (container !== undefined && reached(container) && !hasEnded(container)) return container;
    }
  } catch (thrown) {
    throw ConnectError.from(thrown).code === Code.Canceled
      ? new CliError("failed", `the connection to the node was lost; container ${id} goes on`, {
          next: `See: oci-node inspect ${id}`,
        })
      : thrown;
  } finally {
    done.abort();
  }
  if (last === undefined) throw new CliError("failed", `container ${id} is not known any more`);
  return last;
}
