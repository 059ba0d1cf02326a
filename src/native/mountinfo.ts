/** What is mounted and attached, from /proc and /sys. */
import { readdir, readFile } from "node:fs/promises";

/** One line of /proc/<pid>/mountinfo (proc(5)). */
export interface MountEntry {
  readonly id: number;
  readonly parentId: number;
  /** `major:minor` of the file system's device: the name of its folder under /sys/class/bdi. */
  readonly device: string;
  readonly root: string;
  readonly mountpoint: string;
  readonly options: string;
  readonly type: string;
  readonly source: string;
  readonly superOptions: string;
}

/** Space, tab, newline and backslash stand as \040, \011, \012, \134. */
function unescapeOctal(text: string): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    const fields = line.split(" ");
    const dash = fields.indexOf("-", 6);
    if (dash < 0) continue;
    entries.push({
      id: Number(fields[0]),
      parentId: Number(fields[1]),
      device: fields[2]!,
      root: unescapeOctal(fields[3]!),
      mountpoint: unescapeOctal(fields[4]!),
      options: fields[5]!,
      type: fields[dash + 1] ?? "",
      source: unescapeOctal(fields[dash + 2] ?? ""),
      superOptions: unescapeOctal(fields[dash + 3] ?? ""),
    });
  }
  return entries;
}

/** This process's mounts, in the order in which they were made. */
export async function readMounts(): Promise<MountEntry[]> {
  return parseMountinfo(await readFile("/proc/self/mountinfo", "utf8"));
}

export interface LoopDevice {
  readonly device: string;
  readonly backingFile: string;
}

/** The loop devices that have a file, e.g. to clear those that a dead predecessor left. */
export async function listLoops(): Promise<LoopDevice[]> {
  const found: LoopDevice[] = [];
  for (const name of await readdir("/sys/block")) {
    if (!name.startsWith("loop")) continue;
    const file = await readFile(`/sys/block/${name}/loop/backing_file`, "utf8").catch(() => undefined);
    if (file !== undefined) found.push({ device: `/dev/${name}`, backingFile: file.trimEnd() });
  }
  return found;
}
