import { printable } from "../std/printable.ts";
import type { Container } from "./container.ts";
import { ContainerError } from "./error.ts";
import type { ContainerStore } from "./store.ts";

/**
 * A container by its id, by its name, or by the beginning of its id where that is clear.
 *
 * @throws ContainerError `not_found`, in the same words for what there is not and for what is another workspace's
 */
export async function findContainer(
  containers: Pick<ContainerStore, "find" | "named" | "list">,
  workspaceId: string,
  text: string,
): Promise<Container> {
  const exact = await containers.find(text);
  if (exact?.workspaceId === workspaceId) return exact;
  const named = await containers.named(workspaceId, text);
  if (named !== undefined) return named;
  const alike =
    text.length < 3
      ? []
      : (await containers.list(workspaceId, { all: true })).filter(({ id }) => id.startsWith(text));
  const [only] = alike;
  if (only === undefined || alike.length > 1) {
    const many = alike.length > 1;
    throw new ContainerError(
      "not_found",
      many ? `${printable(text)} could be several containers` : `no container ${printable(text)}`,
      {
        next: many ? "Give more of its id." : "List them with `oci-node ps --all`.",
      },
    );
  }
  return only;
}
