import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { lstat, open, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { busyboxImage } from "../kit/busybox-image.ts";
import * as hostile from "../kit/hostile-image.ts";
import { type Layer, type LocalImage, writeLayout } from "../kit/oci-layout.ts";
import { noise } from "../kit/odd-image.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { StandaloneMount } from "../kit/standalone-mount.ts";
import { inScratch, refusal, World, withCredentials } from "../kit/world.ts";

const mebi = 1024 * 1024;

let registry: TestRegistry;
beforeAll(async () => {
  registry = await TestRegistry.start({ auth: "htpasswd" });
});
afterAll(() => registry.stop());

let images = 0;
async function pushed(
  dir: string,
  layer: Layer,
  to = registry,
): Promise<{ reference: string; image: LocalImage }> {
  images += 1;
  const image = await writeLayout(join(dir, `layout-${images}`), [layer], { Cmd: ["/bin/true"] });
  return { image, reference: await push(image, to, `hostile/image-${images}:1`) };
}

const indexArgs = (reference: string, dir: string): string[] => [
  "index",
  reference,
  "--store",
  join(dir, "index"),
  ...withCredentials,
  "--insecure-registry",
  registry.host,
];

describe("an image is refused by name, soon and without much memory, that has", () => {
  test.each([
    ["10 GiB of zeros in 300 KB of zstd", () => hostile.zeros("zstd", 10), [], "ratio_max of 1100"],
    [
      "10 GiB of zeros in 10 MB of gzip",
      () => hostile.zeros("gzip", 10),
      ["tar_bytes_max=256Mi"],
      "tar_bytes_max of 268435456",
    ],
    [
      "a deflate block without an end",
      () => hostile.endlessBlock(100 * mebi),
      [],
      "span_bytes_max of 67108864",
    ],
    ["a million entries", () => hostile.entries(1_000_000), ["entries_max=500000"], "entries_max of 500000"],
    ["paths of a million directories", () => hostile.deepPaths(300), [], "implied_directories_max of 500000"],
    ["a pax header of 1 GiB", hostile.hugePax, [], "pax_bytes_max of 1048576"],
    ["a sparse file of a petabyte", () => hostile.sparse(2 ** 50), [], "blob_bytes_max of 4398046511104"],
    [
      "a size below zero",
      () => hostile.member({ name: "f", size: -512, format: "gnu" }),
      [],
      "its size is negative",
    ],
    [
      "a size beyond the stream",
      () => hostile.member({ name: "f", size: 2 ** 40, format: "gnu" }),
      [],
      "ends at byte",
    ],
    [
      "a name that leaves it",
      () => hostile.member({ name: "../../etc/cron.d/x" }),
      [],
      "could leave the image",
    ],
    [
      "a hard link that leaves it",
      () => hostile.member({ name: "x", type: "1", link: "../../etc/shadow" }),
      [],
      "could leave the image",
    ],
    [
      "a hard link to nothing",
      () => hostile.member({ name: "x", type: "1", link: "/etc/shadow" }),
      [],
      'names "etc/shadow", which is not there',
    ],
    [
      "a way through links in a circle",
      () =>
        hostile.member(
          { name: "a", type: "2", link: "b" },
          { name: "b", type: "2", link: "a" },
          { name: "a/f" },
        ),
      [],
      "too many symbolic links",
    ],
    ["deflate that is none", hostile.garbageDeflate, [], "the gzip layer, near byte"],
  ] as [string, () => Layer, string[], string][])("%s", (_, make, limits, told) =>
    inScratch(async (dir) => {
      const { reference } = await pushed(dir, make());
      const mount = new StandaloneMount(dir, registry);
      const result = await mount.cli([
        ...indexArgs(reference, dir),
        ...limits.flatMap((limit) => ["--limit", limit]),
      ]);
      expect(refusal(result)).toContain(told);
      expect(result.memoryBytes).toBeLessThan(512 * mebi);
      expect(result.elapsedMs).toBeLessThan(30_000);
      expect(await readdir(join(dir, "index", "scratch"))).toEqual([]);
    }),
  );
});

describe("an image is taken and costs what is read of it, that has", () => {
  test("half a gigabyte of zeros in half a megabyte of gzip", () =>
    inScratch(async (dir) => {
      const { reference } = await pushed(dir, hostile.zeros("gzip", 0.5));
      const mount = new StandaloneMount(dir, registry);
      const result = await mount.up(reference);
      expect(result.stderr).not.toContain("oci-node: ");
      expect(result.code).toBe(0);
      expect(result.memoryBytes).toBeLessThan(512 * mebi);
      const path = join(mount.target, "zeros");
      expect((await stat(path)).size).toBe(512 * mebi);
      expect((await readAt(path, 300 * mebi + 5, 4096)).every((byte) => byte === 0)).toBe(true);
      await mount.down();
    }));

  test("a sparse file of a terabyte", () =>
    inScratch(async (dir) => {
      const { reference } = await pushed(dir, hostile.sparse(2 ** 40));
      const mount = new StandaloneMount(dir, registry);
      const result = await mount.up(reference);
      expect(result.stderr).not.toContain("oci-node: ");
      expect(result.code).toBe(0);
      const path = join(mount.target, "sparse");
      expect((await stat(path)).size).toBe(2 ** 40);
      expect((await readAt(path, 2 ** 39, 4096)).every((byte) => byte === 0)).toBe(true);
      expect(await readAt(path, 2 ** 40 - 8192, 4096)).toEqual(Buffer.from(noise(4096, 3)));
      await mount.down();
    }));

  test("links to everywhere, which lead nowhere out of it", () =>
    inScratch(async (dir) => {
      const links = ["loop", "/etc/shadow", "../../../../../../etc/shadow", `${"x/".repeat(2000)}y`];
      const { reference } = await pushed(
        dir,
        hostile.member(
          ...links.map((link, at) => ({
            name: at === 0 ? "loop" : `l${at}`,
            type: "2",
            pax: [["linkpath", link]] as const,
          })),
        ),
      );
      const mount = new StandaloneMount(dir, registry);
      expect((await mount.up(reference)).code).toBe(0);
      await expect(readFile(join(mount.target, "loop"))).rejects.toThrow("ELOOP");
      for (const name of await readdir(mount.target))
        expect((await lstat(join(mount.target, name))).isSymbolicLink()).toBe(true);
      await mount.down();
    }));
});

async function readAt(path: string, position: number, length: number): Promise<Buffer> {
  const file = await open(path);
  try {
    const bytes = Buffer.alloc(length);
    await file.read(bytes, 0, length, position);
    return bytes;
  } finally {
    await file.close();
  }
}

test("a node refuses by the limits of its configuration, and goes on with the next image", () =>
  inScratch(async (dir) => {
    const config = join(dir, "config.toml");
    await writeFile(config, '[index.limits]\ntar_bytes_max = "50Mi"\n', { mode: 0o600 });
    await using world = await World.start({ node: { args: ["--config", config] } });
    const { reference } = await pushed(dir, hostile.zeros("gzip", 1), world.registry);
    const build = await world.node.cli(["image", "build", reference, ...withCredentials], { env: world.env });
    const told = refusal(build, [world.registry.account.password]);
    expect(told).toContain("tar_bytes_max of 52428800");
    expect(told).toContain("[index.limits]");
    const image = await world.build("team/good:1", { image: await busyboxImage() });
    expect(await world.node.ok(["run", image.id, "--", "echo", "still here"])).toBe("still here");
  }));
