import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, readdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { diffTrees } from "../../src/index/tree-diff.test-kit.ts";
import { run } from "../../src/std/spawn.ts";
import { sleep } from "../../src/std/wait.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { leftovers, loopDevices, mounts } from "../kit/leftovers.ts";
import { runCli } from "../kit/node.ts";
import type { LayerCompression, LocalImage } from "../kit/oci-layout.ts";
import { foldersOfAnyTime, noise, oddImage } from "../kit/odd-image.ts";
import { product } from "../kit/product.ts";
import { TestProxy } from "../kit/proxy.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { StandaloneMount } from "../kit/standalone-mount.ts";
import { unpack } from "../kit/unpack.ts";
import { inScratch, refusal, withCredentials } from "../kit/world.ts";

let basic: TestRegistry;
let bearer: TestRegistry;
beforeAll(async () => {
  basic = await TestRegistry.start({ auth: "htpasswd" });
  bearer = await TestRegistry.start({ auth: "bearer" });
});
afterAll(async () => {
  await basic.stop();
  await bearer.stop();
});

async function expectSameTree(
  image: LocalImage,
  registry: TestRegistry,
  flags: readonly string[],
  oracle = image,
): Promise<void> {
  const reference = await push(image, registry, "odd/tree:1");
  await inScratch(async (dir) => {
    const expected = await unpack(oracle, join(dir, "bundle"));
    const mount = new StandaloneMount(dir, registry);
    const result = await mount.up(reference, flags);
    expect(result.stderr).not.toContain("oci-node: ");
    expect(result.code).toBe(0);
    if (flags.includes("loop")) expect((await loopDevices(dir)).length).toBeGreaterThan(0);
    const anyTime = foldersOfAnyTime();
    expect(await diffTrees(expected, mount.target, { anyTime: (path) => anyTime.has(path) })).toEqual([]);
    await mount.down();
    expect(await mounts(dir)).toEqual([]);
  });
}

describe("the mounted tree equals the extracted one", () => {
  test("by file, from a registry with a password", async () => {
    await expectSameTree(await oddImage(), basic, []);
  });

  test("by file, fetched as it is read", async () => {
    await expectSameTree(await oddImage(), basic, ["--index-only"]);
  });

  test("by loop devices, from a registry with bearer tokens", async () => {
    await expectSameTree(await oddImage(), bearer, ["--index-only", "--mount-transport", "loop"]);
  });

  for (const compression of [["none"], ["zstd"], ["zstd", "none", "gzip"]] as LayerCompression[][]) {
    test(`with layers as ${compression.join(", ")}`, async () => {
      await expectSameTree(await oddImage(compression), basic, ["--index-only"], await oddImage());
    });
  }
});

describe("mount", () => {
  test("fetches what is read and not the rest", async () => {
    const image = await busyboxImage({ extra: [{ path: "data/big", data: noise(40 * 1024 * 1024, 9) }] });
    const reference = await push(image, basic, "lazy/app:1");
    await using proxy = await TestProxy.start(basic.host);
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, basic);
      const throughProxy = reference.replace(basic.host, proxy.host);
      expect(
        (
          await mount.cli([
            "index",
            throughProxy,
            "--store",
            join(dir, "index"),
            ...withCredentials,
            "--insecure-registry",
            proxy.host,
          ])
        ).code,
      ).toBe(0);
      await proxy.resetStats();
      expect((await mount.up(throughProxy)).code).toBe(0);
      expect(await readFile(join(mount.target, "etc/motd"), "utf8")).toBe("hello from the image\n");
      expect(await readdir(join(mount.target, "data"))).toEqual(["big"]);
      const { bytes } = await proxy.stats();
      expect(bytes).toBeGreaterThan(0);
      expect(bytes).toBeLessThan(10 * 1024 * 1024);
      await mount.down();
    });
  });

  test("a read that the registry leaves without an answer ends by its deadline, and works afterwards", async () => {
    const content = noise(6 * 1024 * 1024, 11);
    const reference = await push(
      await busyboxImage({ extra: [{ path: "data/big", data: content }] }),
      basic,
      "slow/app:1",
    );
    await using proxy = await TestProxy.start(basic.host);
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, basic);
      const throughProxy = reference.replace(basic.host, proxy.host);
      expect((await mount.up(throughProxy, ["--index-only", "--read-deadline", "1s"])).code).toBe(0);
      await proxy.setFaults({ match: "GET .*/blobs/", action: { kind: "hang" } });
      const started = performance.now();
      const failed = await readFile(join(mount.target, "data/big")).catch((error: unknown) => error);
      expect(failed).toMatchObject({ code: "EIO" });
      expect(performance.now() - started).toBeLessThan(10_000);
      await proxy.setFaults();
      await expectSoon(async () => (await readFile(join(mount.target, "data/big"))).equals(content));
      await mount.down();
    });
  });

  test("what changed in the cache between two mounts is found and fetched again", async () => {
    const content = noise(6 * 1024 * 1024, 12);
    const reference = await push(
      await busyboxImage({ extra: [{ path: "data/big", data: content }] }),
      basic,
      "kept/app:1",
    );
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, basic);
      for (const flags of [[], [], ["--verify-cache"]]) {
        expect((await mount.up(reference, flags)).code).toBe(0);
        expect((await readFile(join(mount.target, "data/big"))).equals(content)).toBe(true);
        await mount.down();
        for (const blob of new Bun.Glob("cache/layers/sha256/*.blob").scanSync({ cwd: dir }))
          await flipByte(join(dir, blob));
      }
    });
  });

  test("refuses wrong credentials and leaves nothing behind", async () => {
    const reference = await push(await busyboxImage(), basic, "app:1");
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, basic);
      await mkdir(mount.target);
      const env = { USERNAME: "robot", PASSWORD: "wrong", HOME: dir, XDG_CONFIG_HOME: dir };
      const args = ["mount", reference, mount.target, ...withCredentials, "--insecure-registry", basic.host];
      refusal(
        await runCli(
          await product(),
          [...args, "--index-store", join(dir, "index"), "--cache-dir", join(dir, "cache")],
          { env },
        ),
      );
      expect(await leftovers(dir)).toEqual([]);
    });
  });

  test("refuses an index that was changed, by name, and a fresh one heals it", async () => {
    const reference = await push(await busyboxImage(), basic, "app:1");
    for (const damage of [flipByte, cutShort]) {
      await inScratch(async (dir) => {
        const mount = new StandaloneMount(dir, basic);
        expect((await mount.up(reference)).code).toBe(0);
        await mount.down();
        const { stdout } = await run(["find", join(dir, "index"), "-type", "f", "-size", "+0"]);
        for (const path of stdout.trim().split("\n")) await damage(path);
        const again = await mount.up(reference);
        if (again.code === 0) {
          expect(await readFile(join(mount.target, "etc/motd"), "utf8")).toBe("hello from the image\n");
          await mount.down();
        } else {
          expect(refusal(again)).toMatch(/index/);
        }
      });
    }
  });

  test("refuses a place that is no folder", async () => {
    const reference = await push(await busyboxImage(), basic, "app:1");
    await inScratch(async (dir) => {
      const mount = new StandaloneMount(dir, basic);
      await writeFile(mount.target, "");
      const args = ["mount", reference, mount.target, ...withCredentials, "--insecure-registry", basic.host];
      expect(refusal(await mount.cli(args))).toContain(mount.target);
    });
  });
});

/** A failure that took long is told again at once for a moment, and then looked into anew. */
async function expectSoon(holds: () => Promise<boolean>): Promise<void> {
  const until = performance.now() + 10_000;
  while (!(await holds().catch(() => false))) {
    if (performance.now() > until) throw new Error("it did not come to hold");
    await sleep(100);
  }
}

async function flipByte(path: string): Promise<void> {
  const bytes = await readFile(path);
  const at = Math.floor(bytes.length / 2);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  await writeFile(path, bytes);
}

async function cutShort(path: string): Promise<void> {
  await truncate(path, Math.floor((await readFile(path)).length / 2));
}
