import { readFile } from "node:fs/promises";
import type { containerShape } from "../../src/cli/shape.ts";
import type { TestNode } from "../kit/node.ts";
import { pythonImports } from "../kit/python-image.ts";
import { type Benchmark, figure } from "./figure.ts";
import { onStage } from "./stage.ts";

const containers = 10;

/** Memory of the node's own process (all roles, without the database's processes): alone, and with containers. */
export const workerMemory: Benchmark = {
  name: "worker-memory",
  about: `memory of the node's process when idle, and with ${containers} containers that read much`,
  run: (tell) =>
    onStage(async (stage) => {
      const node = await stage.node();
      try {
        const idle = await megabytesOf(node.pid);
        const image = await stage.build(node);
        const built = await megabytesOf(node.pid);
        const script = `${pythonImports[2]}; import time; time.sleep(1000)`;
        const ids: string[] = [];
        for (let index = 0; index < containers; index++) {
          ids.push(await node.ok(["run", "-d", image, "--", "python3", "-u", "-c", script]));
        }
        for (const id of ids) await firstLine(node, id);
        const busy = await megabytesOf(node.pid);
        tell(
          `${idle.toFixed(0)} MB idle, ${built.toFixed(0)} after a build, ${busy.toFixed(0)} with ${containers} containers`,
        );
        return [
          figure("worker-memory/idle", idle, "MB", 300),
          figure("worker-memory/with-containers", busy, "MB", 500, {
            containers,
            afterBuild: Number(built.toPrecision(4)),
          }),
        ];
      } finally {
        await node.discard();
      }
    }),
};

/** Waits until the container has written something. */
async function firstLine(node: TestNode, id: string): Promise<void> {
  for (;;) {
    if ((await node.cli(["logs", id])).stdout !== "") return;
    const container = await node.json<ReturnType<typeof containerShape>>(["inspect", id]);
    if (["exited", "failed", "stopped"].includes(container.state))
      throw new Error(`${id} is ${container.state}: ${container.reason}`);
  }
}

/** The proportional set size of a process, in 10^6 bytes. */
async function megabytesOf(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  return (Number(text.match(/^Pss:\s+(\d+) kB/m)?.[1]) * 1024) / 1e6;
}
