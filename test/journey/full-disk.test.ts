import { expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { runCli } from "../kit/node.ts";
import { noise } from "../kit/odd-image.ts";
import { product } from "../kit/product.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { credentialVariables, inScratch, refusal, World, withCredentials } from "../kit/world.ts";

const bigSizeBytes = 48 * 1024 * 1024;
const bigImage = () => busyboxImage({ extra: [{ path: "data/big", data: noise(bigSizeBytes, 11) }] });
const bigSum = (): string => new Bun.CryptoHasher("md5").update(noise(bigSizeBytes, 11)).digest("hex");

/** Calls `action` with a folder on a file system of so many bytes. */
async function onSmallDisk(size: string, action: (dir: string) => Promise<void>): Promise<void> {
  await inScratch(async (scratch) => {
    const dir = join(scratch, "small");
    await mkdir(dir);
    await run(["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", dir]);
    try {
      await action(dir);
    } finally {
      await run(["umount", dir]);
    }
  });
}

test("a cache on a full disk is no reason to fail: bytes are served without keeping them", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const reference = await push(await bigImage(), registry, "app:1");
  await onSmallDisk("8m", async (dir) => {
    await inScratch(async (scratch) => {
      const target = join(scratch, "tree");
      await mkdir(target);
      const env = { ...credentialVariables(registry), HOME: scratch, XDG_CONFIG_HOME: scratch };
      const places = [
        "--index-store",
        join(scratch, "index"),
        "--cache-dir",
        join(dir, "cache"),
        "--insecure-registry",
        registry.host,
      ];
      const mounted = await runCli(
        await product(),
        ["mount", reference, target, ...withCredentials, ...places],
        {
          env,
        },
      );
      expect(mounted.stderr).not.toContain("oci-node: ");
      expect(mounted.code).toBe(0);
      const { stdout } = await run(["md5sum", join(target, "data/big")], { timeoutMs: 100_000 });
      expect(stdout).toContain(bigSum());
      expect((await runCli(await product(), ["umount", target], { env })).code).toBe(0);
    });
  });
});

test("an index store on a full disk fails by name and keeps nothing half-made", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const reference = await push(await bigImage(), registry, "app:1");
  await onSmallDisk("64k", async (dir) => {
    const env = { ...credentialVariables(registry), HOME: dir, XDG_CONFIG_HOME: dir };
    const args = [
      "index",
      reference,
      "--store",
      join(dir, "index"),
      ...withCredentials,
      "--insecure-registry",
      registry.host,
    ];
    const told = refusal(await runCli(await product(), args, { env }), [registry.account.password]);
    expect(told).toMatch(/space|full/i);
    // Layers that were finished may stay, for the next try; nothing of the image and nothing in the making.
    const { stdout } = await run([
      "find",
      join(dir, "index"),
      "-type",
      "f",
      "-not",
      "-path",
      "*/layers/sha256/*",
    ]);
    expect(stdout).toBe("");
  });
});

test("a container that fills its disk hurts nobody else, and the node goes on", async () => {
  await onSmallDisk("400m", async (dir) => {
    const world = await World.start({ node: { dataDir: join(dir, "data") } });
    try {
      const image = await world.build("team/app:1");
      const full = await world.node.cli([
        "run",
        image.id,
        "--",
        "dd",
        "if=/dev/zero",
        "of=/filler",
        "bs=1M",
        "count=1000",
      ]);
      expect(full.code).not.toBe(0);
      expect(full.stderr).toMatch(/space/i);
      expect(await world.node.ok(["run", image.id])).toBe("hello from the image");
    } finally {
      await world.stop();
    }
  });
});
