import { randomBytes } from "node:crypto";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, rmdir, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defaultOptions } from "../container/options.ts";
import { type ImageConfig, parseImageConfig } from "../registry/image-config.ts";
import { logger } from "../std/log.ts";
import { statePaths } from "./layout.ts";
import { networkLeftovers, removeNetworks } from "./network/network.test-kit.ts";
import { defaultNetworkSettings, type NetworkSettings } from "./network/settings.ts";
import { Runtime, type RuntimeOptions } from "./runtime.ts";
import type { ContainerSpec, ExitStatus, LogChunk } from "./spec.ts";

const applets =
  "sh sleep echo cat ls id env head dd tail ip hostname yes touch stat true mount wget pwd printf kill ps stty tty sha256sum";

/** What came of a container. */
export interface Ending {
  readonly exit: ExitStatus;
  readonly output: string;
  readonly errors: string;
}

/** For tests: a state directory, a tiny image (busybox) and a cgroup parent of their own, all gone after `close`. */
export class TestHost {
  readonly directory: string;
  readonly imageRoot: string;
  readonly stateDir: string;
  readonly cgroupParent: string;
  /** A subnet of its own, so that test files that run at once do not share leases. */
  readonly network: NetworkSettings;
  #runtimes: Runtime[] = [];

  private constructor(directory: string) {
    this.directory = directory;
    this.imageRoot = join(directory, "image");
    this.stateDir = join(directory, "state");
    this.cgroupParent = `oci-node-test-${randomBytes(4).toString("hex")}`;
    const [second = 0, third = 0] = randomBytes(2);
    this.network = { ...defaultNetworkSettings, subnet: `10.${128 + (second & 63)}.${third}.0/28` };
  }

  static async open(): Promise<TestHost> {
    const host = new TestHost(await mkdtemp(join(tmpdir(), "oci-node-runtime-")));
    await makeImage(host.imageRoot);
    return host;
  }

  async runtime(options: Partial<RuntimeOptions> = {}): Promise<Runtime> {
    const runtime = await Runtime.create({
      stateDir: this.stateDir,
      runtime: "runc",
      logger: logger("runtime"),
      cgroupParent: this.cgroupParent,
      network: this.network,
      ...options,
    });
    this.#runtimes.push(runtime);
    return runtime;
  }

  spec(command: readonly string[], more: Partial<ContainerSpec> = {}): ContainerSpec {
    return {
      id: `t-${randomBytes(6).toString("hex")}`,
      attempt: 1,
      workspaceId: "w",
      imageRoot: this.imageRoot,
      imageConfig: imageConfig({}),
      command,
      env: {},
      network: "none",
      options: defaultOptions,
      ...more,
    };
  }

  /** Runs it, and cleans up when it has ended. */
  async runToEnd(runtime: Runtime, spec: ContainerSpec): Promise<Ending> {
    const container = await runtime.start(spec, new AbortController().signal);
    try {
      const exit = await container.exited;
      const output = await textOf(runtime.logs(spec.id), "stdout");
      const errors = await textOf(runtime.logs(spec.id), "stderr");
      return { exit, output, errors };
    } finally {
      await container.cleanup();
      await container.removeLog();
    }
  }

  /** Has another process start the container, wait for its first line or less, and die by SIGKILL. */
  async startInDyingProcess(
    spec: ContainerSpec,
    until: "line" | "created" | "recorded" = "line",
  ): Promise<void> {
    const script = join(import.meta.dir, "start-and-die.test-kit.ts");
    const child = Bun.spawn(
      [process.execPath, script, this.stateDir, this.cgroupParent, until, JSON.stringify(this.network)],
      { stdin: new Blob([JSON.stringify(spec)]), stdout: "inherit", stderr: "inherit" },
    );
    await child.exited;
    if (child.signalCode !== "SIGKILL") throw new Error(`it ended before its time, with ${child.exitCode}`);
  }

  /** Where a container's root is mounted. */
  rootOf(id: string): string {
    return join(statePaths(this.stateDir).roots, id, "root");
  }

  /** What is left of containers: mounts, cgroups, directories, processes that work in our directory. */
  async leftovers(): Promise<string[]> {
    const mounts = (await readFile("/proc/self/mountinfo", "utf8"))
      .split("\n")
      .filter((line) => line.includes(this.directory));
    const cgroups = (await this.#cgroups()).filter((path) => !path.endsWith("/.monitors"));
    const homes = await readdir(join(this.stateDir, "containers"));
    const paths = statePaths(this.stateDir);
    const exits = await readdir(paths.exits).catch(() => []);
    const known = await readdir(paths.runtimeRoot).catch(() => []);
    const roots = await readdir(paths.roots).catch(() => []);
    const networks = await networkLeftovers(this.stateDir, this.network.subnet);
    const kept = [...homes, ...exits, ...known, ...roots];
    return [...mounts, ...cgroups, ...kept, ...networks, ...(await this.#processes())];
  }

  /** Command lines that name our directory: monitors, runtimes. */
  async #processes(): Promise<string[]> {
    const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
    const lines = await Promise.all(
      pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")),
    );
    return lines.filter((line) => line.includes(this.directory));
  }

  async close(): Promise<void> {
    // A failed test must not leave a container on the host.
    const last = await this.runtime();
    for (const container of await last.adopt()) await container.cleanup();
    for (const runtime of this.#runtimes) await runtime.close();
    await removeNetworks(this.stateDir, this.network.subnet);
    for (const path of (await this.#cgroups()).toReversed()) await rmdir(path);
    for (const path of await this.#parents()) await rmdir(path);
    await rm(this.directory, { recursive: true });
  }

  async #cgroups(): Promise<string[]> {
    const found: string[] = [];
    for (const parent of await this.#parents()) {
      for (const entry of await readdir(parent, { withFileTypes: true })) {
        if (entry.isDirectory()) found.push(join(parent, entry.name));
      }
    }
    return found;
  }

  async #parents(): Promise<string[]> {
    const hierarchies = ["", ...(await readdir("/sys/fs/cgroup"))].map((name) =>
      join("/sys/fs/cgroup", name),
    );
    const parents: string[] = [];
    for (const hierarchy of hierarchies) {
      const parent = join(hierarchy, this.cgroupParent);
      if (await readdir(parent).catch(() => undefined)) parents.push(parent);
    }
    return parents;
  }
}

/** An image configuration with these execution parameters. */
export function imageConfig(config: Readonly<Record<string, unknown>>): ImageConfig {
  return parseImageConfig({ architecture: "amd64", os: "linux", config: { Env: ["PATH=/bin"], ...config } });
}

/** Everything that a container wrote, as text. */
export async function textOf(chunks: AsyncIterable<LogChunk>, stream?: LogChunk["stream"]): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks)
    if (stream === undefined || chunk.stream === stream) parts.push(chunk.data);
  return Buffer.concat(parts).toString();
}

async function makeImage(root: string): Promise<void> {
  for (const directory of ["bin", "etc", "tmp", "home/ann"])
    await mkdir(join(root, directory), { recursive: true });
  await copyFile("/bin/busybox", join(root, "bin/busybox"));
  for (const applet of applets.split(" ")) await symlink("busybox", join(root, "bin", applet));
  await writeFile(
    join(root, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nann:x:1001:1002:Ann:/home/ann:/bin/sh\nbroken line\n",
  );
  await writeFile(
    join(root, "etc/group"),
    "root:x:0:\nann:x:1002:\nwheel:x:20:bob,ann\naudio:x:29:ann\nvideo:x:44:\n",
  );
}
