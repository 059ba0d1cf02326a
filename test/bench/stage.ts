import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildBinary } from "../../native/binary.ts";
import { run } from "../../src/std/spawn.ts";
import { sweep } from "../kit/leftovers.ts";
import { TestNode } from "../kit/node.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { TestProxy } from "../kit/proxy.ts";
import { push } from "../kit/push.ts";
import { pythonImage } from "../kit/python-image.ts";
import { TestRegistry } from "../kit/registry.ts";
import { credentialVariables, withCredentials } from "../kit/world.ts";

/** The link that benchmarks are measured over: 20 ms more per request, 1 Gbit/s for all together. */
const link = { delayMs: 20, bytesPerSecond: 125_000_000 };

/** What benchmarks share: the compiled executable, the Python image in a private registry behind the link, scratch space. */
export class Stage {
  readonly command: readonly string[];
  readonly image: LocalImage;
  readonly registry: TestRegistry;
  readonly proxy: TestProxy;
  /** The image's reference through the link. */
  readonly reference: string;
  readonly dir: string;
  readonly dataDir: string;

  private constructor(
    binary: string,
    image: LocalImage,
    registry: TestRegistry,
    proxy: TestProxy,
    reference: string,
    dir: string,
  ) {
    this.command = [binary];
    this.image = image;
    this.registry = registry;
    this.proxy = proxy;
    this.reference = reference;
    this.dir = dir;
    this.dataDir = join(dir, "data");
  }

  static async set(): Promise<Stage> {
    const binary = await buildBinary();
    const image = await pythonImage();
    const registry = await TestRegistry.start({ auth: "htpasswd" });
    const proxy = await TestProxy.start(registry.host, link);
    const reference = await push(image, registry, "bench/python:1");
    const dir = await mkdtemp(join(tmpdir(), "oci-node-bench-"));
    await chmod(dir, 0o755);
    return new Stage(binary, image, registry, proxy, reference.replace(registry.host, proxy.host), dir);
  }

  get env(): Record<string, string> {
    return credentialVariables(this.registry);
  }

  /** A node over the stage's data folder: what one node built, the next one finds. */
  node(): Promise<TestNode> {
    const insecureRegistries = [...this.registry.insecureHosts, this.proxy.host];
    return TestNode.start({ command: this.command, dataDir: this.dataDir, insecureRegistries });
  }

  async build(node: TestNode): Promise<string> {
    return node.ok(["image", "build", this.reference, ...withCredentials], {
      env: this.env,
      timeoutMs: 600_000,
    });
  }

  /** Forgets every byte of images that is kept on this machine. No node may run. */
  async forget(): Promise<void> {
    await rm(join(this.dataDir, "cache"), { recursive: true, force: true });
    await dropCaches();
  }

  async strike(): Promise<void> {
    await this.proxy.stop();
    await this.registry.stop();
    await sweep(this.dir);
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** Writes out and drops the kernel's page, dentry and inode caches. */
export async function dropCaches(): Promise<void> {
  await run(["sync"]);
  await writeFile("/proc/sys/vm/drop_caches", "3");
}

/** Sets the stage, does the work, strikes the stage. */
export async function onStage<T>(work: (stage: Stage) => Promise<T>): Promise<T> {
  const stage = await Stage.set();
  try {
    return await work(stage);
  } finally {
    await stage.strike();
  }
}
