import type { ContainerSpec } from "./container.ts";
import { defaultOptions } from "./options.ts";

/**
 * What a hand-over can say, as a number that grows with it. A worker says, when it registers, up to where it understands one;
 * of a later one it would run what it knows and leave out the rest without a word. To be raised with what a worker must not
 * leave out, together with {@link requestVersionOf}.
 *
 * 0: image, command, environment, CPU, memory, the host's network or none. 1: options, private networks, functions of uploaded
 * code, and programs that serve HTTP.
 */
export const requestVersionNow = 1;

/** The least that a worker must understand to run this as it is meant. */
export function requestVersionOf({
  network,
  options,
  handler,
  serving,
}: Pick<ContainerSpec, "network" | "options" | "handler" | "serving">): number {
  const plain = network !== "private" && handler === undefined && serving === undefined;
  return plain && Bun.deepEquals(options, defaultOptions) ? 0 : 1;
}
