import { CodedError } from "../std/error.ts";

/**
 * - `nothing_to_run` neither the image nor the request names a program
 * - `command_not_found` the program is not in the image
 * - `permission` the program is there but may not be executed
 * - `bad_user` the image's user or group does not exist in it
 * - `bad_config` the image configuration or the request cannot be turned into a container
 * - `runtime_missing` runc (crun, runsc) or conmon is not installed or does not run
 * - `create_failed` the runtime refused to make or start the container
 * - `overlay_failed` the writable layer could not be mounted or unmounted
 * - `cgroup` a limit was asked for that this host cannot hold
 * - `exists` a container of this id is here already
 * - `not_found` no container or log of this id is here
 * - `cleanup_failed` something of a container is left behind; calling again continues
 * - `network` the container's network could not be made or removed
 * - `port_taken` a port of the host that was asked for is in use
 * - `volume` a host path or a volume cannot be had
 * - `too_many` it has as many programs beside its own as it may have
 * - `not_running` it has ended, or does not run yet
 * - `no_python` the image has no Python that a handler could run in
 * - `code` uploaded code could not be fetched or unpacked
 * - `cancelled` the caller's signal fired
 */
export const runtimeErrorCodes = [
  "nothing_to_run",
  "command_not_found",
  "permission",
  "bad_user",
  "bad_config",
  "runtime_missing",
  "create_failed",
  "overlay_failed",
  "cgroup",
  "exists",
  "not_found",
  "cleanup_failed",
  "network",
  "port_taken",
  "volume",
  "too_many",
  "not_running",
  "no_python",
  "code",
  "cancelled",
] as const;

export type RuntimeErrorCode = (typeof runtimeErrorCodes)[number];

/** A container that could not be started, watched, stopped or removed. */
export class RuntimeError extends CodedError<RuntimeErrorCode> {
  override readonly name = "RuntimeError";
}

/** The {@link RuntimeError} of an aborted wait. */
export function cancelled(id: string, cause?: unknown): RuntimeError {
  return new RuntimeError("cancelled", `the start of container ${id} was cancelled`, { cause });
}
