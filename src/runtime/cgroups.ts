import { mkdir, readFile, rmdir, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../std/error.ts";
import { sleep } from "../std/wait.ts";
import type { ResourceUsage } from "./spec.ts";

const cgroup2Magic = 0x6367_7270;
const removeTriesMax = 50;
const removePauseMs = 100;

export type CgroupMode = "v1" | "hybrid" | "v2" | "none";

/**
 * The host's control groups: v1 hierarchies (cgroups(7)), a v2 tree (Documentation/admin-guide/cgroup-v2.rst), or both
 * side by side (hybrid: controllers in v1, an empty v2 tree besides).
 */
export class Cgroups {
  readonly mode: CgroupMode;
  /** Controllers that can limit or count. */
  readonly controllers: readonly string[];
  readonly #v1: ReadonlyMap<string, string>;
  readonly #v2: string | undefined;

  private constructor(
    mode: CgroupMode,
    v1: ReadonlyMap<string, string>,
    v2: string | undefined,
    controllers: string[],
  ) {
    this.mode = mode;
    this.#v1 = v1;
    this.#v2 = v2;
    this.controllers = controllers;
  }

  static async detect(): Promise<Cgroups> {
    const root = "/sys/fs/cgroup";
    const type = await statfs(root).then(
      (found) => found.type,
      () => 0,
    );
    if (type === cgroup2Magic) {
      const controllers = await readWords(join(root, "cgroup.controllers"));
      return new Cgroups("v2", new Map(), root, controllers);
    }
    const { v1, v2 } = parseMounts(await readFile("/proc/self/mountinfo", "utf8"));
    const controllers = [...v1.keys()].filter((name) => !name.startsWith("name="));
    const mode = v1.size === 0 ? "none" : v2 === undefined ? "v1" : "hybrid";
    return new Cgroups(mode, v1, v2, controllers.sort());
  }

  /** Whether the host can limit the resource. A hybrid host's v1 controllers count. */
  limits(resource: "memory" | "cpu" | "pids"): boolean {
    return this.controllers.includes(resource);
  }

  /** Whether swap can be limited together with memory. */
  async limitsSwap(): Promise<boolean> {
    const memory = this.#v1.get("memory");
    if (memory !== undefined) return exists(join(memory, "memory.memsw.limit_in_bytes"));
    if (this.#v2 === undefined || this.mode !== "v2") return false;
    // The root cgroup has no such file; kernels that are new enough for v2 alone account swap.
    const own = (await readFile("/proc/self/cgroup", "utf8")).trim().split("::")[1] ?? "/";
    return own === "/" || exists(join(this.#v2, own, "memory.swap.max"));
  }

  /** How many processes of the cgroup the kernel ended for want of memory. 0 when the cgroup is gone. */
  async oomKills(cgroup: string): Promise<number> {
    const memory = this.#v1.get("memory");
    if (memory !== undefined) return readField(join(memory, cgroup, "memory.oom_control"), "oom_kill");
    if (this.#v2 !== undefined) return readField(join(this.#v2, cgroup, "memory.events"), "oom_kill");
    return 0;
  }

  /** What the cgroup uses now; zeros where the host does not count. */
  async usage(cgroup: string): Promise<ResourceUsage> {
    if (this.mode === "v2" && this.#v2 !== undefined) {
      const own = join(this.#v2, cgroup);
      return {
        memoryBytes: Number(await readNumber(join(own, "memory.current"))),
        cpuNanoseconds: BigInt(await readField(join(own, "cpu.stat"), "usage_usec")) * 1000n,
        pids: Number(await readNumber(join(own, "pids.current"))),
      };
    }
    const of = (controller: string, file: string): Promise<bigint> =>
      readNumber(join(this.#v1.get(controller) ?? "/nonexistent", cgroup, file));
    return {
      memoryBytes: Number(await of("memory", "memory.usage_in_bytes")),
      cpuNanoseconds: await of("cpuacct", "cpuacct.usage"),
      pids: Number(await of("pids", "pids.current")),
    };
  }

  /**
   * Moves a container's monitor out of the worker's own unit, in the hierarchy by which the service manager knows whom
   * to end with the unit.
   */
  async moveMonitor(cgroup: string, pid: number): Promise<void> {
    for (const hierarchy of [this.#v1.get("name=systemd"), this.#v2]) {
      if (hierarchy === undefined) continue;
      await mkdir(join(hierarchy, cgroup), { recursive: true });
      await writeFile(join(hierarchy, cgroup, "cgroup.procs"), String(pid));
    }
  }

  /** Removes the cgroup from every hierarchy, waiting for its last processes to go. */
  async remove(cgroup: string): Promise<void> {
    for (const hierarchy of new Set([...this.#v1.values(), ...(this.#v2 === undefined ? [] : [this.#v2])])) {
      await removeDirectory(join(hierarchy, cgroup));
    }
  }
}

async function removeDirectory(path: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await rmdir(path);
      return;
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return;
      if (errnoOf(error) !== "EBUSY" || tries === removeTriesMax) throw error;
    }
    await sleep(removePauseMs);
  }
}

/** The mount points of the hierarchies by controller (`memory`, `name=systemd`), from proc_pid_mountinfo(5). */
function parseMounts(mountinfo: string): { v1: Map<string, string>; v2: string | undefined } {
  const v1 = new Map<string, string>();
  let v2: string | undefined;
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const target = left.split(" ")[4];
    const [type, , options = ""] = right.split(" ");
    if (target === undefined) continue;
    if (type === "cgroup2") v2 ??= target;
    if (type !== "cgroup") continue;
    for (const option of options.split(",")) {
      if (
        ["rw", "ro", "xattr", "clone_children", "noprefix"].includes(option) ||
        option.startsWith("release_agent")
      )
        continue;
      if (!v1.has(option)) v1.set(option, target);
    }
  }
  return { v1, v2 };
}

async function readWords(path: string): Promise<string[]> {
  return (await readFile(path, "utf8")).split(/\s+/).filter((word) => word !== "");
}

async function readNumber(path: string): Promise<bigint> {
  try {
    return BigInt((await readFile(path, "utf8")).trim());
  } catch {
    return 0n;
  }
}

async function readField(path: string, name: string): Promise<number> {
  try {
    const text = await readFile(path, "utf8");
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1) ?? 0);
  } catch {
    return 0;
  }
}

async function exists(path: string): Promise<boolean> {
  return readFile(path).then(
    () => true,
    () => false,
  );
}
