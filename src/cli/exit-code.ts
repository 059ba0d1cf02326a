import type { Container } from "../gen/oci_node/v1/container_service_pb.ts";
import { note } from "./output.ts";
import { notStartedExitCode } from "./remove.ts";

/** What a command that was with a container until its end exits with; says why where there is a reason. */
export function exitCodeOf(container: Container): number {
  if (container.startedAt === undefined || container.exitCode === undefined) {
    note(`oci-node: container ${container.id}: ${container.reason || "it ended before it was started"}`);
    // 126 and 127: its program is what could not be started.
    return container.exitCode ?? notStartedExitCode;
  }
  if (container.reason !== "") note(`oci-node: container ${container.id}: ${container.reason}`);
  return container.exitCode;
}
