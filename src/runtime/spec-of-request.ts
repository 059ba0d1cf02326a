import type { ContainerSecrets } from "../secret/container-secrets.ts";
import type { HoldDependencies, WorkerContainerRequest } from "./held-container.ts";
import type { MountedContainerImage } from "./image/image-mounting.ts";
import type { ContainerSpec } from "./spec.ts";

/** What to run for a request, once its image is mounted and its secrets are open. */
export function specOf(
  { publish, hostPaths }: Pick<HoldDependencies, "publish" | "hostPaths">,
  request: WorkerContainerRequest,
  { image, config }: MountedContainerImage,
  secrets: ContainerSecrets,
): ContainerSpec {
  return {
    id: request.containerId,
    attempt: request.attempt,
    workspaceId: request.workspaceId,
    imageRoot: image.root,
    imageConfig: config,
    ...(request.command.length === 0 ? {} : { command: [...request.command] }),
    env: { ...request.env, ...secrets.variables() },
    secretFiles: secrets.files(),
    cpuMillis: request.cpuMillis,
    memoryBytes: request.memoryBytes,
    network: request.network,
    options: request.options,
    publish: publish?.(request.workspaceName),
    serving: request.serving,
    hostPaths: hostPaths?.(request.workspaceName),
  };
}
