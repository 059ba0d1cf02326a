import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Fault } from "../../test/kit/fault.ts";
import { TestProxy } from "../../test/kit/proxy.ts";
import { anonymousProvider } from "../credential/provider.ts";
import { parseReference } from "../reference/reference.ts";
import type { BlobSource } from "../registry/blob-source.ts";
import { RegistryClient } from "../registry/client.ts";
import { type DockerRegistry, startDockerRegistry } from "../registry/docker-registry.test-kit.ts";
import { linkBlob, pushBlob } from "../registry/image.test-kit.ts";
import { blobSource } from "../registry/repository.ts";
import type { LazyImage } from "./lazy-image.ts";
import { noise, type TestImage, TestRoom } from "./mount.test-kit.ts";
import type { TransportChoice } from "./transport.ts";

const KiB = 1024;
/** Larger than a span, so that no two of them are in one. */
const fileBytes = 2_500 * KiB;

/** How a read from outside of this process ended. */
export interface ReadOutcome {
  /** `ok`: every byte was right. */
  readonly ended: "ok" | "EIO" | string;
  readonly tookMs: number;
}

/** One image in a real registry behind a proxy, read through real mounts: what is wrong with the registry is for tests. */
export class RegistryScene {
  readonly room: TestRoom;
  readonly image: TestImage;
  readonly proxy: TestProxy;
  readonly #registry: DockerRegistry;
  readonly #proxies: TestProxy[] = [];
  readonly #faults = new Map<string, readonly Fault[]>();

  private constructor(room: TestRoom, image: TestImage, registry: DockerRegistry, proxy: TestProxy) {
    this.room = room;
    this.image = image;
    this.#registry = registry;
    this.proxy = proxy;
  }

  /** The image has files `a`, `b`, … that share no span, and `warm` and `warm2` that do. */
  static async start(files: string): Promise<RegistryScene> {
    const room = await TestRoom.create();
    const large = [...files].map((name) => [name, noise(fileBytes)]);
    const layer = Object.fromEntries([["warm", noise(KiB)], ["warm2", noise(KiB)], ...large]);
    const [image, registry] = await Promise.all([room.image([layer]), startDockerRegistry()]);
    for (const [digest, bytes] of image.source.blobs) await pushBlob(registry.host, "app", digest, bytes);
    const scene = new RegistryScene(room, image, registry, await TestProxy.start(registry.host));
    await mkdir(scene.rightDir);
    for (const [name, content] of image.files) await writeFile(join(scene.rightDir, name), content);
    return scene;
  }

  /** Holds the files as they should be read. */
  get rightDir(): string {
    return join(this.room.dir, "right");
  }

  async stop(): Promise<void> {
    await this.room.end();
    for (const proxy of [this.proxy, ...this.#proxies]) await proxy.stop();
    await this.#registry.stop();
  }

  /** Mounts with a cache and a client of its own, from a repository of its own at `host`. */
  async mount(
    name: string,
    options: {
      readonly transport: TransportChoice;
      readonly deadlineMs: number;
      readonly host?: string;
      /** Of the registry, in this order. */
      readonly mirrors?: readonly string[];
    },
  ): Promise<MountedScene> {
    for (const digest of this.image.source.blobs.keys())
      await linkBlob(this.#registry.host, "app", name, digest);
    const mounts = await this.room.mounts({
      stateDir: join(this.room.dir, name, "state"),
      cacheDir: join(this.room.dir, name, "cache"),
      transport: options.transport,
      limits: { deadlineMs: options.deadlineMs },
    });
    const source = this.#source(options.host ?? this.proxy.host, name, options.mirrors ?? []);
    const mounted = await mounts.acquire({
      workspace: "ws",
      index: this.image.opened,
      source,
      background: false,
      eager: false,
      signal: new AbortController().signal,
    });
    return new MountedScene(this, name, mounted);
  }

  /** One more proxy before the registry, for trouble that does not know what it is asked. */
  async anotherProxy(link: { readonly backlog?: number } = {}): Promise<TestProxy> {
    const proxy = await TestProxy.start(this.#registry.host, link);
    this.#proxies.push(proxy);
    return proxy;
  }

  /** What is wrong with the blobs of one repository from now on. */
  async setFault(name: string, action: Fault["action"] | undefined): Promise<void> {
    this.#faults.set(name, action === undefined ? [] : [{ match: ` /v2/${name}/`, action }]);
    await this.proxy.setFaults(...[...this.#faults.values()].flat());
  }

  async requests(name: string): Promise<number> {
    const { log } = await this.proxy.stats();
    return log.filter((line) => line.includes(` /v2/${name}/`)).length;
  }

  #source(host: string, name: string, mirrorHosts: readonly string[]): BlobSource {
    const list = mirrorHosts.map((mirror) => ({ url: new URL(`http://${mirror}`), namespaced: false }));
    const mirrors = new Map([[host, list]]);
    const policy = { insecureHosts: new Set([host]), privateHosts: new Set<string>(), mirrors };
    const reference = parseReference(`${host}/${name}:1`);
    return blobSource(new RegistryClient({ policy }).repository(reference, anonymousProvider(host)));
  }
}

/** A mount whose registry a test can trouble. */
export class MountedScene {
  readonly name: string;
  readonly image: LazyImage;
  readonly #scene: RegistryScene;

  constructor(scene: RegistryScene, name: string, image: LazyImage) {
    this.#scene = scene;
    this.name = name;
    this.image = image;
  }

  /** Reads a file in a process of its own, as this one answers the misses. */
  async read(file: string): Promise<ReadOutcome> {
    const began = performance.now();
    const compared = ["cmp", join(this.image.root, file), join(this.#scene.rightDir, file)];
    const child = Bun.spawn(compared, { stdout: "pipe", stderr: "pipe" });
    const [difference, complaint] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
    ]);
    const code = await child.exited;
    const tookMs = performance.now() - began;
    if (/Input\/output error/.test(complaint)) return { ended: "EIO", tookMs };
    return { ended: code === 0 ? "ok" : `wrong: ${difference}${complaint}`, tookMs };
  }
}
