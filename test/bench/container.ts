import { run } from "../../src/std/spawn.ts";
import type { TestNode } from "../kit/node.ts";
import type { Container } from "../kit/world.ts";

/** Starts a container that stays, and gives its id and the process in it when it runs. */
export async function startStaying(
  node: TestNode,
  image: string,
  ...argv: string[]
): Promise<{ id: string; pid: number }> {
  const id = await node.ok(["run", "-d", image, "--", ...argv], { timeoutMs: 120_000 });
  await running(node, id);
  const { stdout } = await run(["sh", "-c", 'grep -l "$1" /proc/[0-9]*/cgroup', "sh", id]);
  const pid = stdout.match(/\/proc\/(\d+)\//)?.[1];
  if (pid === undefined) throw new Error(`container ${id} has no process`);
  return { id, pid: Number(pid) };
}

/** Asks until the container runs. */
export async function running(node: TestNode, id: string): Promise<void> {
  for (;;) {
    const container = await node.json<Container>(["inspect", id]);
    if (container.state === "running") return;
    if (!["preparing", "scheduled", "pending"].includes(container.state))
      throw new Error(`the container is ${container.state}: ${container.reason}`);
  }
}

/** Asks until all of the container's image is on this machine. */
export async function complete(node: TestNode, id: string): Promise<void> {
  const deadline = Date.now() + 180_000;
  for (;;) {
    const { transfer } = await node.json<Container>(["inspect", id]);
    if (transfer?.complete === true) return;
    if (Date.now() > deadline) throw new Error(`the image is not complete: ${JSON.stringify(transfer)}`);
    await Bun.sleep(200);
  }
}
