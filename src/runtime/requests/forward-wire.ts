import { type Refusal, refusals } from "./forwarder.ts";

/** Of a worker's own server: `/forward/CONTAINER` and then the path that the container gets. No RPC has such a path. */
export const forwardPrefix = "/forward/";

/**
 * What a worker says of a request in its answer's head: `answer`, the answer is the container's; a {@link Refusal}, the container
 * was not asked; `broken`, it was, and has not answered. What a container says under this name does not come through.
 */
export const forwardHeader = "oci-node-forward";
export const answered = "answer";
export const broken = "broken";

export function asRefusal(text: string | undefined): Refusal | undefined {
  return refusals.find((refusal) => refusal === text);
}
