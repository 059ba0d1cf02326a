import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { mounts, processes } from "../kit/leftovers.ts";
import { runCli } from "../kit/node.ts";
import type { LayerCompression, LocalImage } from "../kit/oci-layout.ts";
import { noise, oddImage } from "../kit/odd-image.ts";
import { product } from "../kit/product.ts";
import { TestProxy } from "../kit/proxy.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { StandaloneMount } from "../kit/standalone-mount.ts";
import { credentialVariables, inScratch, withCredentials } from "../kit/world.ts";

let registry: TestRegistry;
let proxy: TestProxy;
beforeAll(async () => {
  registry = await TestRegistry.start({ auth: "htpasswd" });
  proxy = await TestProxy.start(registry.host);
});
afterAll(async () => {
  await proxy.stop();
  await registry.stop();
});

const big = () => busyboxImage({ extra: [{ path: "data/big", data: noise(20 * 1024 * 1024, 9) }] });

async function pushThrough(image: LocalImage, name: string): Promise<string> {
  return (await push(image, registry, name)).replace(registry.host, proxy.host);
}

/** Reads every file of a tree. */
async function readAll(tree: string): Promise<void> {
  await run(["sh", "-c", 'find "$1" -xdev -type f -exec cat {} + | wc -c', "sh", tree], {
    timeoutMs: 60_000,
  });
}

async function blobs(mount: StandaloneMount): Promise<Map<string, string>> {
  const folder = join(mount.dir, "cache/layers/sha256");
  const names = (await readdir(folder)).filter((name) => name.endsWith(".blob"));
  return new Map(names.map((name) => [name, join(folder, name)]));
}

describe("the first mount of an image", () => {
  test("fetches every byte once, and then needs neither the registry nor a process for it", async () => {
    const image = await big();
    const reference = await pushThrough(image, "one-pass/app:1");
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, registry);
      await proxy.resetStats();
      expect((await mount.up(reference)).code).toBe(0);
      const { bytes, log } = await proxy.stats();
      expect(bytes).toBeGreaterThan(image.sizeBytes);
      expect(bytes).toBeLessThan(image.sizeBytes * 1.01 + 64 * 1024);
      const blobRequests = log.filter((line) => line.startsWith("GET") && line.includes("/blobs/"));
      expect(blobRequests.length).toBe(image.layers.length + 1);
      expect(new Set(blobRequests).size).toBe(blobRequests.length);
      await readAll(mount.target);
      expect((await proxy.stats()).requests).toBe(log.length);
      expect((await mounts(dir)).filter((line) => line.includes("fuse"))).toEqual([]);
      await mount.down();
      expect(await readdir(join(dir, "cache/incoming"))).toEqual([]);
    });
  });

  for (const compression of [["gzip"], ["none"], ["zstd"]] as LayerCompression[][]) {
    test(`of ${compression.join()} layers puts the bytes where fetching as they are read does`, async () => {
      const reference = await push(await oddImage(compression), registry, `one-pass/${compression.join()}:1`);
      await inScratch(async (dir) => {
        const [once, lazy] = ["once", "lazy"].map(
          (name) => new StandaloneMount(join(dir, name), registry),
        ) as [StandaloneMount, StandaloneMount];
        expect((await once.up(reference)).code).toBe(0);
        expect((await lazy.up(reference, ["--index-only", "--fetch-all"])).code).toBe(0);
        const expected = await blobs(once);
        expect(expected.size).toBe(3);
        await readAll(lazy.target);
        const deadline = Date.now() + 20_000;
        for (const [name, path] of await blobs(lazy)) {
          const sum = async (of: string) => (await run(["sha256sum", of])).stdout.slice(0, 64);
          const whole = await sum(expected.get(name) ?? "");
          while ((await sum(path)) !== whole) if (Date.now() > deadline) throw new Error(`${name} differs`);
        }
        await once.down();
        await lazy.down();
      });
    });
  }

  test("takes folders as the caller names them, though it is served from elsewhere", async () => {
    const reference = await push(await busyboxImage(), registry, "one-pass/relative:1");
    await inScratch(async (dir) => {
      await mkdir(join(dir, "tree"));
      const env = { ...credentialVariables(registry), HOME: dir, XDG_CONFIG_HOME: dir };
      const here = async (...args: string[]) => (await runCli(await product(), args, { env, cwd: dir })).code;
      const flags = [...withCredentials, "--insecure-registry", registry.host];
      const places = ["--index-store", "index", "--cache-dir", "cache"];
      expect(await here("mount", reference, "tree", ...places, ...flags)).toBe(0);
      expect((await readdir(dir)).sort()).toEqual(["cache", "index", "tree"]);
      const kept = await readdir(join(dir, "cache/layers/sha256"));
      expect(kept.filter((name) => name.endsWith(".blob"))).toHaveLength(3);
      expect(await readFile(join(dir, "tree/etc/motd"), "utf8")).toBe("hello from the image\n");
      expect(await here("umount", "tree")).toBe(0);
      expect(await here("index", reference, "--store", "other", ...flags)).toBe(0);
      expect(await readdir(join(dir, "other/images/sha256"))).toHaveLength(1);
    });
  });

  test("with --index-only keeps nothing, and fetches what is read", async () => {
    const reference = await pushThrough(await big(), "one-pass/lazy:1");
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, registry);
      expect((await mount.up(reference, ["--index-only"])).code).toBe(0);
      for (const path of (await blobs(mount)).values()) expect((await stat(path)).blocks).toBe(0);
      await proxy.resetStats();
      expect(await readFile(join(mount.target, "etc/motd"), "utf8")).toBe("hello from the image\n");
      expect((await proxy.stats()).requests).toBeGreaterThan(0);
      await mount.down();
    });
  });

  test("that is interrupted leaves nothing of the layer that it was reading", async () => {
    const reference = await pushThrough(await big(), "one-pass/interrupted:1");
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, registry);
      await proxy.setFaults({
        match: "GET .*/blobs/",
        action: { kind: "stall", afterBytes: 4 * 1024 * 1024 },
      });
      const mounting = mount.up(reference);
      const incoming = join(dir, "cache/incoming");
      const written = () =>
        run(["sh", "-c", `find ${incoming} -name '*.blob' -size +1000k 2>/dev/null || :`]);
      while ((await written()).stdout === "") expect(mounting).toBeInstanceOf(Promise);
      const [server] = await processes(mount.target);
      process.kill(Number(server?.split(" ")[1]), "SIGINT");
      const result = await mounting;
      await proxy.setFaults();
      expect(result.code).toBe(1);
      expect(await readdir(incoming)).toEqual([]);
      expect((await mount.up(reference)).code).toBe(0);
      await mount.down();
    });
  });
});
