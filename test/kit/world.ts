import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { containerShape, imageShape, secretShape } from "../../src/cli/shape.ts";
import { busyboxImage } from "./busybox-image.ts";
import { leftovers, sweep } from "./leftovers.ts";
import { type CliResult, type NodeOptions, TestNode } from "./node.ts";
import type { LocalImage } from "./oci-layout.ts";
import { TestProxy } from "./proxy.ts";
import { push } from "./push.ts";
import { type RegistryOptions, TestRegistry } from "./registry.ts";

/** What `--json` gives of a container, an image, a secret. */
export type Container = ReturnType<typeof containerShape>;
export type Image = ReturnType<typeof imageShape>;
export type Secret = ReturnType<typeof secretShape>;

/** The flags of a build with the credentials of {@link World.env}. */
export const withCredentials: readonly string[] = ["--creds", "USERNAME,PASSWORD"];

/** A private registry, a proxy before it, and a node that knows both: what a journey needs. */
export class World {
  readonly registry: TestRegistry;
  readonly proxy: TestProxy;
  readonly node: TestNode;

  private constructor(registry: TestRegistry, proxy: TestProxy, node: TestNode) {
    this.registry = registry;
    this.proxy = proxy;
    this.node = node;
  }

  static async start(options: { registry?: RegistryOptions; node?: NodeOptions } = {}): Promise<World> {
    const registry = await TestRegistry.start(options.registry ?? { auth: "htpasswd" });
    const proxy = await TestProxy.start(registry.host);
    try {
      const insecureRegistries = [...registry.insecureHosts, proxy.host];
      return new World(registry, proxy, await TestNode.start({ insecureRegistries, ...options.node }));
    } catch (error) {
      await proxy.stop();
      await registry.stop();
      throw error;
    }
  }

  /** The caller's variables that hold the registry's credentials. */
  get env(): Record<string, string> {
    return credentialVariables(this.registry);
  }

  /** Pushes an image, by default the small one with a shell, and gives its reference, through the proxy when asked. */
  async push(name: string, options: { image?: LocalImage; throughProxy?: boolean } = {}): Promise<string> {
    const reference = await push(options.image ?? (await busyboxImage()), this.registry, name);
    return options.throughProxy === true ? reference.replace(this.registry.host, this.proxy.host) : reference;
  }

  /** Pushes and builds; gives the image, of which the node has nothing but the index yet unless `kept` says otherwise. */
  async build(
    name: string,
    options: { image?: LocalImage; throughProxy?: boolean; kept?: boolean } = {},
  ): Promise<Image> {
    const reference = await this.push(name, options);
    const flags = [...withCredentials, ...(options.kept === true ? [] : ["--index-only"])];
    return this.node.json<Image>(["image", "build", reference, ...flags], { env: this.env });
  }

  inspect(id: string): Promise<Container> {
    return this.node.json<Container>(["inspect", id]);
  }

  /** The container that was made last. */
  async lastContainer(): Promise<Container> {
    const all = await this.node.json<Container[]>(["ps", "--all"]);
    const last = all.toSorted((a, b) => (a.createdAt ?? "").localeCompare(b.createdAt ?? "")).at(-1);
    if (last === undefined) throw new Error("there is no container");
    return this.inspect(last.id);
  }

  /** Asks until the container is in one of the states. */
  async reaches(id: string, ...states: readonly string[]): Promise<Container> {
    const deadline = Date.now() + 30_000;
    for (;;) {
      const container = await this.inspect(id);
      if (states.includes(container.state)) return container;
      if (Date.now() > deadline) throw new Error(`${id} is ${container.state}, not ${states.join(" or ")}`);
    }
  }

  /** Ends everything; the node must leave nothing behind. */
  async stop(): Promise<void> {
    try {
      await this.node.stop();
    } finally {
      await this.proxy.stop();
      await this.registry.stop();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

export function credentialVariables(registry: TestRegistry): Record<string, string> {
  return { USERNAME: registry.account.username, PASSWORD: registry.account.password };
}

/** Checks that a command failed as a command should: by exit code (of `run`, 125), with a message and a next step, without a secret. */
export function refusal(result: CliResult, secrets: readonly string[] = [], code: 1 | 125 = 1): string {
  const told = result.stderr;
  if (result.code !== code)
    throw new Error(`exit code ${result.code} instead of ${code}: ${result.stdout}${told}`);
  if (!/^oci-node: .+\n( {2}.+\n)/m.test(told)) throw new Error(`no message with a next step: ${told}`);
  if (/^\s+at .*\(.*:\d+:\d+\)$/m.test(told)) throw new Error(`a stack: ${told}`);
  for (const secret of secrets) if (told.includes(secret)) throw new Error("a secret is in the message");
  return told;
}

/** A folder for a test, with whatever is mounted in it taken away at the end; what is left behind is an error. */
export async function inScratch<T>(action: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-scratch-"));
  await chmod(dir, 0o755);
  try {
    const result = await action(dir);
    const left = await leftovers(dir);
    if (left.length > 0) throw new Error(`left behind:\n${left.join("\n")}`);
    return result;
  } finally {
    await sweep(dir);
    await rm(dir, { recursive: true, force: true });
  }
}
