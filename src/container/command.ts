import type { ContainerSpec } from "./container.ts";

/**
 * What tells one program of an image from another: the command, or the function that a runner serves. Each has traces of
 * its own of what its starts read; versions of a function's code share them.
 */
export function commandOf({ command, handler }: Pick<ContainerSpec, "command" | "handler">): string[] {
  return handler === undefined ? [...command] : ["oci-node-runner", handler.name];
}
