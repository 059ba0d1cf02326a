import { readFile } from "node:fs/promises";

/** Makes a file in a container's /tmp, from outside of the node. The container's argv must name `/tmp/go`. */
export async function tell(id: string, word: string): Promise<void> {
  await Bun.write(`${await rootOf(id)}/tmp/${word}`, "");
}

/** Whether a container has made a file in its /tmp; false when it has ended. */
export async function says(id: string, word: string): Promise<boolean> {
  const root = await rootOf(id).catch(() => undefined);
  return root !== undefined && (await Bun.file(`${root}/tmp/${word}`).exists());
}

/** A container's root, as a process of it sees it. */
async function rootOf(id: string): Promise<string> {
  for (const pid of new Bun.Glob("*").scanSync({ cwd: "/proc", onlyFiles: false })) {
    if (!/^\d+$/.test(pid)) continue;
    const cgroup = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
    const argv = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (cgroup.includes(id) && argv.includes("/tmp/go")) return `/proc/${pid}/root`;
  }
  throw new Error(`no process of container ${id} is there`);
}
