import { afterEach, beforeEach, expect, test } from "bun:test";
import { lstatSync } from "node:fs";
import { join } from "node:path";
import { diffTrees } from "./tree-diff.test-kit.ts";
import type { TestLayer } from "./tree-layers.test-kit.ts";
import { Bench } from "./tree-oracle.test-kit.ts";
import { randomLayers } from "./tree-random.test-kit.ts";

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.open();
});
afterEach(async () => {
  await bench.close();
});

/** Mounts the merged layers, unpacks the same layers with umoci, and compares everything. */
async function differences(
  layers: readonly TestLayer[],
  anyTime?: (path: string) => boolean,
): Promise<string[]> {
  const [mounted, unpacked] = [await bench.mountLayers(layers), await bench.unpack(layers)];
  return await diffTrees(mounted, unpacked, {
    directoryLinks: true,
    ...(anyTime === undefined ? {} : { anyTime }),
  });
}

const root = { path: "", type: "dir", mtime: [1, 0] } as const;

test("the mounted tree has every kind of inode, owner, mode and time as unpacking gives them", async () => {
  const layers: TestLayer = [
    root,
    {
      path: "d",
      type: "dir",
      mode: 0o2755,
      uid: 1000,
      gid: 3_000_000_000,
      mtime: [4_102_444_800, 999_999_999],
    },
    { path: "d/empty", type: "file", mtime: [-631_152_000, 1] },
    { path: "d/one", type: "file", content: "1", mode: 0o4755, uid: 4_294_967_294 },
    { path: "d/block", type: "file", content: "b".repeat(4096), mode: 0 },
    { path: "d/more", type: "file", content: "m".repeat(100_000), mode: 0o1777, mtime: [-1, 999_999_999] },
    { path: "d/link", type: "symlink", link: "more", uid: 5, gid: 6, mtime: [12, 345] },
    { path: "d/dangling", type: "symlink", link: "/no/such/place" },
    { path: "d/second", type: "hardlink", link: "d/more" },
    { path: "d/linklink", type: "hardlink", link: "d/link" },
    { path: "d/null", type: "char", device: [1, 3], mode: 0o666 },
    { path: "d/disk", type: "block", device: [259, 1_000_000], mode: 0o660 },
    { path: "d/fifo", type: "fifo", mode: 0o600 },
    { path: "d/\xff\xe9 \\ \n\t", type: "file", content: "bytes" },
    {
      path: "d",
      type: "dir",
      mode: 0o2755,
      uid: 1000,
      gid: 3_000_000_000,
      mtime: [4_102_444_800, 999_999_999],
    },
  ];
  expect(await differences([layers])).toEqual([]);
});

test("the mounted tree has extended attributes, access control lists and capabilities", async () => {
  const acl = Buffer.from(
    "0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff",
    "hex",
  );
  const capability = Buffer.from("0100000202040000000000000000000000000000", "hex");
  const layers: TestLayer = [
    root,
    {
      path: "d",
      type: "dir",
      xattrs: { "system.posix_acl_default": acl, "trusted.b": "t" },
      mtime: [2, 0],
    },
    {
      path: "f",
      type: "file",
      content: "x",
      mode: 0o664,
      xattrs: { "system.posix_acl_access": acl, "user.big": "v".repeat(3000) },
    },
    { path: "p", type: "file", content: "x", mode: 0o755, xattrs: { "security.capability": capability } },
    { path: "l", type: "symlink", link: "x", xattrs: { "trusted.of-a-link": "1" } },
    { path: "n", type: "file", xattrs: { [`user.${"n".repeat(250)}`]: "long", "user.caf\xe9": "ü" } },
    root,
  ];
  expect(await differences([layers])).toEqual([]);
});

test("whiteouts, links across layers and replaced entries end as unpacking ends", async () => {
  const layers: TestLayer[] = [
    [
      root,
      { path: "usr", type: "dir", mtime: [2, 0] },
      { path: "usr/lib", type: "dir", mtime: [3, 0] },
      { path: "usr/lib/a", type: "file", content: "a" },
      { path: "usr/lib/b", type: "file", content: "b" },
      { path: "lib", type: "symlink", link: "usr/lib" },
      { path: "gone", type: "dir", mtime: [4, 0] },
      { path: "gone/x", type: "file" },
      { path: "opaque", type: "dir", mtime: [5, 0] },
      { path: "opaque/old", type: "file" },
      { path: "file", type: "file", content: "file" },
      { path: "folder", type: "dir", mtime: [6, 0] },
      { path: "folder/x", type: "file" },
    ],
    [
      { path: "lib/c", type: "file", content: "c" },
      { path: "lib/.wh.a", type: "file" },
      { path: ".wh.gone", type: "file" },
      { path: "opaque/new", type: "file" },
      { path: "opaque/.wh..wh..opq", type: "file" },
      { path: "file", type: "dir", mtime: [7, 0], mode: 0o700 },
      { path: "folder", type: "file", content: "now a file" },
      { path: "second", type: "hardlink", link: "lib/b" },
      { path: "third", type: "hardlink", link: "second" },
    ],
    [
      { path: "file/back", type: "file", content: "" },
      { path: "folder", type: "dir", mtime: [8, 0] },
      { path: "usr/lib/.wh.b", type: "file" },
      { path: "usr/lib", type: "dir", mode: 0o711, mtime: [9, 1] },
    ],
  ];
  expect(await differences(layers)).toEqual([]);
});

test("the same layer twice, and a layer without contents, are devices like others", async () => {
  const layer: TestLayer = [root, { path: "f", type: "file", content: "twice" }];
  expect(await differences([layer, [root, { path: "g", type: "symlink", link: "f" }], layer])).toEqual([]);
});

test("loop devices show the same tree as files do, a layer without contents included", async () => {
  const layers = [
    ...randomLayers(9, 3, 60),
    [{ path: "last", type: "symlink", link: "x" }] satisfies TestLayer,
  ];
  const [files, loops] = [await bench.mountLayers(layers), await bench.mountLayers(layers, "loops")];
  expect(await diffTrees(files, loops, { directoryLinks: true })).toEqual([]);
});

for (const seed of [1, 2, 3, 4, 5, 6]) {
  test(`random layers of seed ${seed} end as unpacking ends`, async () => {
    const layers = randomLayers(seed, 3, 60);
    const isDirectory = (path: string) => {
      const full = Buffer.concat([
        Buffer.from(`${join(bench.folder, "bundle/rootfs")}/`),
        Buffer.from(path, "latin1"),
      ]);
      return lstatSync(full, { throwIfNoEntry: false })?.isDirectory() ?? false;
    };
    expect(await differences(layers, isDirectory)).toEqual([]);
  });
}
