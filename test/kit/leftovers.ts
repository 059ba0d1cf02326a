import { readdir, readFile, readlink } from "node:fs/promises";
import { networkLeftovers, sweepNetwork } from "./network-leftovers.ts";

/**
 * Everything on this machine that still has to do with a folder (a node's data, a test's scratch): mounts, loop devices,
 * processes, links and firewall rules, and the cgroups, addresses and ports of the containers named. A line each; empty when all is gone.
 */
export async function leftovers(dir: string, containerIds: readonly string[] = []): Promise<string[]> {
  const found = await Promise.all([
    mounts(dir),
    loopDevices(dir),
    processes(dir),
    cgroups(containerIds),
    namespaces(containerIds),
    networkLeftovers(dir, containerIds),
  ]);
  return found.flat();
}

/** Mounts whose place, source or options name the folder. */
export async function mounts(dir: string): Promise<string[]> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  return lines.filter((line) => mentions(line, dir)).map((line) => `mount ${line}`);
}

/** Where the folder's file systems are mounted, in it or elsewhere, the last mounted first: the order to unmount in. */
export async function mountPoints(dir: string): Promise<string[]> {
  const lines = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  const ours = lines.filter((line) => mentions(line.replaceAll("\\040", " "), dir));
  return ours.map((line) => (line.split(" ")[4] ?? "").replaceAll("\\040", " ")).reverse();
}

export async function loopDevices(dir: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir("/sys/block").catch(() => [])) {
    if (!name.startsWith("loop")) continue;
    const file = (await readFile(`/sys/block/${name}/loop/backing_file`, "utf8").catch(() => "")).trim();
    if (mentions(file, dir)) found.push(`loop device ${name} ${file}`);
  }
  return found;
}

/** Processes that name the folder in their arguments, work in it, or live in a mount namespace with mounts of it. */
export async function processes(dir: string): Promise<string[]> {
  const own = await readlink("/proc/self/ns/mnt");
  const found: string[] = [];
  for (const pid of await readdir("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    const argv = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => ""))
      .replaceAll("\0", " ")
      .trim();
    if (argv === "") continue;
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => "");
    const namespace = await readlink(`/proc/${pid}/ns/mnt`).catch(() => own);
    const foreign = namespace === own ? "" : await readFile(`/proc/${pid}/mountinfo`, "utf8").catch(() => "");
    if ([argv, cwd, foreign].some((text) => mentions(text, dir)))
      found.push(`process ${pid} ${argv.slice(0, 200)}`);
  }
  return found;
}

/** Kills what is left and unmounts it, so that one failed test does not spoil those after it. */
export async function sweep(dir: string): Promise<void> {
  for (const line of await processes(dir)) {
    try {
      process.kill(Number(line.split(" ")[1]), "SIGKILL");
    } catch {
      // It ended by itself meanwhile.
    }
  }
  for (const point of await mountPoints(dir)) Bun.spawnSync(["umount", "-l", point]);
  for (const line of await loopDevices(dir)) Bun.spawnSync(["losetup", "-d", `/dev/${line.split(" ")[2]}`]);
  await sweepNetwork(dir);
}

export async function cgroups(containerIds: readonly string[]): Promise<string[]> {
  if (containerIds.length === 0) return [];
  const listing = Bun.spawnSync([
    "find",
    "/sys/fs/cgroup",
    "-type",
    "d",
    "-path",
    "*oci-node*",
  ]).stdout.toString();
  return listing
    .split("\n")
    .filter((path) => containerIds.some((id) => path.includes(id)))
    .map((path) => `cgroup ${path}`);
}

async function namespaces(containerIds: readonly string[]): Promise<string[]> {
  const names = await readdir("/run/netns").catch(() => []);
  return names
    .filter((name) => containerIds.some((id) => name.includes(id)))
    .map((name) => `network namespace ${name}`);
}

/** True when the text holds the path as a whole or as the beginning of a longer path. */
function mentions(text: string, dir: string): boolean {
  for (let at = text.indexOf(dir); at >= 0; at = text.indexOf(dir, at + 1)) {
    if (!/[\w.-]/.test(text[at + dir.length] ?? "")) return true;
  }
  return false;
}
