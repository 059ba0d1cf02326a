import { expect, test } from "bun:test";
import { lstat, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../../src/std/spawn.ts";
import { busyboxImage } from "./busybox-image.ts";
import type { LocalImage } from "./oci-layout.ts";
import { oddImage } from "./odd-image.ts";
import { unpack } from "./unpack.ts";

async function unpacked(image: LocalImage, look: (root: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-unpack-"));
  try {
    await look(await unpack(image, join(dir, "bundle")));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

test("the busybox image runs and its upper layers cover the lower ones", async () => {
  await unpacked(await busyboxImage(), async (root) => {
    expect((await run(["chroot", root, "/bin/sh", "-c", "cat /etc/motd"])).stdout).toBe(
      "hello from the image\n",
    );
    expect(await readdir(join(root, "etc"))).not.toContain("removed");
  });
});

test("the odd image keeps its oddities when umoci unpacks it", async () => {
  await unpacked(await oddImage(), async (root) => {
    expect((await lstat(join(root, "links/first"))).nlink).toBe(3);
    expect((await lstat(join(root, "bits/setuid"))).mode & 0o7777).toBe(0o4755);
    expect((await lstat(join(root, "time/1960"))).mtimeMs).toBe(-315619200_000);
    expect((await lstat(join(root, "sparse/holes"))).size).toBe(20 * 1024 * 1024 + 77);
    expect((await lstat(join(root, "owner/large"))).uid).toBe(3_000_000_000);
    expect(await readdir(join(root, "opaque"))).toEqual(["upper"]);
    expect(await readFile(join(root, "gone/file"), "utf8")).toBe("back again\n");
    expect((await lstat(join(root, "swap/file-to-dir"))).isDirectory()).toBe(true);
    expect(
      (await readdir(Buffer.from(join(root, "text")), { encoding: "buffer" })).some((name) =>
        name.includes(0xff),
      ),
    ).toBe(true);
  });
});
