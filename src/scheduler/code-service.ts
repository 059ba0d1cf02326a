import type { ServiceImpl } from "@connectrpc/connect";
import type { CodeStore } from "../container/code-store.ts";
import { isEnded } from "../container/state.ts";
import type { ContainerStore } from "../container/store.ts";
import type { SchedulerService } from "../gen/oci_node/v1/scheduler_service_pb.ts";
import { bootOf } from "./boot.ts";
import { SchedulerError } from "./error.ts";
import type { SchedulerStore } from "./store.ts";

export interface CodeServiceDependencies {
  readonly store: Pick<SchedulerStore, "worker">;
  readonly containers: Pick<ContainerStore, "find">;
  readonly codes: Pick<CodeStore, "piece">;
}

/** The part of SchedulerService that gives code to workers: each the code of containers that were placed on it. */
export function codeMethods({
  store,
  containers,
  codes,
}: CodeServiceDependencies): Pick<ServiceImpl<typeof SchedulerService>, "fetchCode"> {
  return {
    async fetchCode(request) {
      const { workerId, containerId, sha256, position } = request;
      await bootOf(store, request);
      const container = await containers.find(containerId);
      const its =
        container?.workerId === workerId &&
        !isEnded(container.state) &&
        container.handler?.codeSha256 === sha256;
      if (container === undefined || !its)
        throw new SchedulerError(
          "not_its_container",
          `no container ${containerId} with that code runs on worker ${workerId}`,
          {
            next: "The worker ends what is not its own by itself.",
          },
        );
      const piece = await codes.piece(container.workspaceId, sha256, position);
      if (piece === undefined)
        throw new SchedulerError("no_code", `the code of container ${containerId} is not here any more`, {
          next: "Deploy the endpoint again.",
        });
      return piece;
    },
  };
}
