import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { sweep } from "../kit/leftovers.ts";
import { type LinkSettings, TestLink } from "../kit/link.ts";
import { type CliResult, runCli, TestNode } from "../kit/node.ts";
import type { LocalImage } from "../kit/oci-layout.ts";
import { product } from "../kit/product.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { credentialVariables, withCredentials } from "../kit/world.ts";

/** The link that benchmarks are measured over: 20 ms more per request, 1 Gbit/s for all together. */
export const usualLink = { delayMs: 20, bytesPerSecond: 125_000_000 } as const;

/**
 * What benchmarks share: the compiled executable, a private registry and its token server behind a link each, scratch space
 * that is cleared between them.
 */
export class Stage {
  readonly command: readonly string[];
  readonly registry: TestRegistry;
  readonly link: TestLink;
  readonly #tokenLink: TestLink;
  /** Everything of the benchmark that runs. */
  readonly dir: string;
  readonly #root: string;
  readonly #pushed = new Map<string, Promise<string>>();
  /** Where the registry keeps the layers of the images that the running benchmark uses. */
  readonly #blobs = new Set<string>();
  #struck = false;

  private constructor(
    command: readonly string[],
    registry: TestRegistry,
    link: TestLink,
    tokenLink: TestLink,
    root: string,
  ) {
    this.command = command;
    this.registry = registry;
    this.link = link;
    this.#tokenLink = tokenLink;
    this.#root = root;
    this.dir = join(root, "scratch");
  }

  static async set(): Promise<Stage> {
    const command = await product();
    let tokenLink: TestLink | undefined;
    const registry = await TestRegistry.start({
      auth: "bearer",
      tokenFront: async (tokenServer) => {
        tokenLink = await TestLink.start(tokenServer, usualLink);
        return tokenLink.host;
      },
    });
    if (tokenLink === undefined) throw new Error("the registry has no token server");
    const link = await TestLink.start(registry.host, usualLink);
    const root = await mkdtemp(join(tmpdir(), "oci-node-bench-"));
    await chmod(root, 0o755);
    const stage = new Stage(command, registry, link, tokenLink, root);
    await mkdir(stage.dir);
    return stage;
  }

  get env(): Record<string, string> {
    return credentialVariables(this.registry);
  }

  /** Where nodes of the running benchmark keep what they have. */
  get dataDir(): string {
    return join(this.dir, "data");
  }

  /** The reference through the link of an image, which is pushed when it was not before. */
  async pushed(image: LocalImage, name: string): Promise<string> {
    const key = `${name} ${image.manifestDigest}`;
    const reference = this.#pushed.get(key) ?? push(image, this.registry, name);
    this.#pushed.set(key, reference);
    for (const { digest } of image.layers) this.#blobs.add(this.registry.blobPath(digest));
    return (await reference).replace(this.registry.host, this.link.host);
  }

  /** The same reference, straight to the registry. */
  direct(reference: string): string {
    return reference.replace(this.link.host, this.registry.host);
  }

  /** A node over the benchmark's data folder: what one node built, the next one finds. */
  node(args: readonly string[] = []): Promise<TestNode> {
    const insecureRegistries = [...this.registry.insecureHosts, this.link.host];
    return TestNode.start({ command: this.command, dataDir: this.dataDir, insecureRegistries, args });
  }

  async build(node: TestNode, reference: string): Promise<string> {
    return node.ok(["image", "build", "--index-only", reference, ...withCredentials], {
      env: this.env,
      timeoutMs: 900_000,
    });
  }

  /** Builds an image on a node that is ended again, and gives the image's id. */
  async builtBefore(reference: string): Promise<string> {
    const node = await this.node();
    try {
      return await this.build(node, reference);
    } finally {
      await node.stopProcess();
      await node.discard();
    }
  }

  /** Runs a command that needs no node (`index`, `mount`, `umount`), with its folders in the scratch space. */
  async alone(args: readonly string[], timeoutMs = 600_000): Promise<CliResult> {
    const env = { ...this.env, HOME: this.dir, XDG_CONFIG_HOME: this.dir, XDG_CACHE_HOME: this.dir };
    const result = await runCli(this.command, args, { env, timeoutMs });
    if (result.code !== 0) throw new Error(`oci-node ${args[0]} failed: ${result.stderr}`);
    return result;
  }

  /** The flags of such a command that reach the registry and name the folders for index and bytes. */
  get aloneFlags(): string[] {
    const hosts = [...this.registry.insecureHosts, this.link.host];
    return [...withCredentials, ...hosts.flatMap((host) => ["--insecure-registry", host])];
  }

  /** Forgets every byte of images that is kept on this machine, and traces if wanted. No node may run. */
  async forget(options: { traces: boolean } = { traces: true }): Promise<void> {
    await rm(join(this.dataDir, "cache"), { recursive: true, force: true });
    if (options.traces) await rm(join(this.dataDir, "index/traces"), { recursive: true, force: true });
    await this.chill();
  }

  /**
   * Writes out and drops the kernel's page, dentry and inode caches, but for the registry's blobs: the registry stands for
   * another machine, whose disk is not what is measured.
   */
  async chill(): Promise<void> {
    await dropCaches();
    if (this.#blobs.size > 0)
      await run(["sh", "-c", 'cat "$@" > /dev/null', "sh", ...this.#blobs], { timeoutMs: 120_000 });
  }

  /** Bytes per second of one plain GET through the link: of an image's largest layer, 256 MiB at most. */
  async plainRate(image: LocalImage, reference: string): Promise<number> {
    const layer = image.layers.toSorted((a, b) => b.size - a.size)[0];
    const bytes = Math.min(layer?.size ?? 0, 256 * 1024 * 1024);
    const repository = reference.slice(reference.indexOf("/") + 1).replace(/:[^:]*$/, "");
    const { username, password } = this.registry.account;
    const scope = `repository:${repository}:pull`;
    const answer = await fetch(`http://${this.registry.tokens?.host}/token?scope=${scope}`, {
      headers: { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}` },
    });
    const authorization = `Bearer ${((await answer.json()) as { token: string }).token}`;
    const url = `http://${this.link.host}/v2/${repository}/blobs/${layer?.digest}`;
    const range = ["-r", `0-${bytes - 1}`];
    const started = performance.now();
    await run(["curl", "-sSf", "-K", "-", ...range, "-o", "/dev/null", url], {
      stdin: `header = "Authorization: ${authorization}"\n`,
      timeoutMs: 300_000,
    });
    return bytes / ((performance.now() - started) / 1000);
  }

  /** Sets the link to the registry and the one to its token server. */
  async setLink(settings: LinkSettings = usualLink): Promise<void> {
    await this.link.set(settings);
    await this.#tokenLink.set(settings);
  }

  /** Takes away whatever the last benchmark left, and sets the link as it was. */
  async clear(): Promise<void> {
    await sweep(this.dir);
    await rm(this.dir, { recursive: true, force: true });
    await mkdir(this.dir);
    this.#blobs.clear();
    await this.setLink();
  }

  /** Whether all is taken away, or about to be: nothing more can be measured. */
  get struck(): boolean {
    return this.#struck;
  }

  async strike(): Promise<void> {
    this.#struck = true;
    await sweep(this.#root);
    await this.link.stop();
    await this.#tokenLink.stop();
    await this.registry.stop();
    await rm(this.#root, { recursive: true, force: true });
  }
}

/** Writes out and drops the kernel's page, dentry and inode caches, all of them. */
export async function dropCaches(): Promise<void> {
  await run(["sync"]);
  await writeFile("/proc/sys/vm/drop_caches", "3");
}

/** Drops unused dentries and inodes only. */
export async function dropDentries(): Promise<void> {
  await writeFile("/proc/sys/vm/drop_caches", "2");
}

/** Anonymous memory of a process, in 10^6 bytes. */
export async function anonymousMegabytes(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8");
  return (Number(text.match(/^RssAnon:\s+(\d+) kB/m)?.[1]) * 1024) / 1e6;
}
