import { afterEach, beforeEach, expect, test } from "bun:test";
import { lstatSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { chunkedPackings, packings, packLayer } from "../index/corpus.test-kit.ts";
import { OverlayOracle } from "../index/overlay-oracle.test-kit.ts";
import { SeededRandom } from "../index/tar.test-kit.ts";
import { diffTrees } from "../index/tree-diff.test-kit.ts";
import type { TestLayer } from "../index/tree-layers.test-kit.ts";
import { randomLayers } from "../index/tree-random.test-kit.ts";
import { acquire, TestRoom } from "./mount.test-kit.ts";

let room: TestRoom;
let oracle: OverlayOracle;

beforeEach(async () => {
  room = await TestRoom.create();
  await mkdir(join(room.dir, "oracle"));
  oracle = new OverlayOracle(join(room.dir, "oracle"), true);
});

afterEach(async () => {
  await oracle.close();
  await room.end();
});

/**
 * Layers of one seed, each packed in another way, mounted lazily and read to the last byte through the kernel; beside it the
 * same layers unpacked and shown by overlayfs. Every packing has its turn.
 */
for (let seed = 1; seed <= 10; seed += 1) {
  test(`random layers of seed ${seed}, packed in different ways, are mounted as overlayfs shows them`, async () => {
    const random = new SeededRandom(seed);
    const asciiNames = seed % 2 === 0;
    const layers = randomLayers(100 + seed, 4, 60, { walkable: true, asciiNames });
    const packed = layers.map((entries, at) => {
      // Tar, unlike us and umoci, leaves a directory the attributes that a lower layer gave it.
      const layer = entries.map((entry) => (entry.type === "dir" ? { ...entry, xattrs: {} } : entry));
      const packing =
        asciiNames && at % 2 === 0
          ? chunkedPackings[((seed + at) / 2) % chunkedPackings.length]
          : packings[(seed * 2 + at) % packings.length];
      return packLayer(layer, packing ?? "gzip", random);
    });
    const mounts = await room.mounts();
    const made = await room.imageOfBlobs(packed.map(({ blob }) => blob));
    const byTable = made.opened.layers.map(({ tocDigest }) => tocDigest !== undefined);
    expect(byTable).toEqual(packed.map(({ blob }) => blob.annotations !== undefined));
    const image = await acquire(mounts, made);
    const expected = await oracle.unpack(packed.map(({ tar }) => tar));
    // Unpacking changes the times of folders that it puts things into.
    const isDirectory = (path: string) => {
      const full = Buffer.concat([Buffer.from(`${expected}/`), Buffer.from(path, "latin1")]);
      return lstatSync(full, { throwIfNoEntry: false })?.isDirectory() ?? false;
    };
    expect(await diffTrees(image.root, expected, { anyTime: isDirectory, linksMayBreak: true })).toEqual([]);
    await image.release();
  });
}

const root = { path: "", type: "dir", mtime: [1, 0] } as const;
const markers: TestLayer = ["d/.wh..wh..opq", ".wh.f", "g/.wh.y", ".wh.nowhere"].map((path) => ({
  path,
  type: "file",
}));
const others: TestLayer = [
  { path: "d/new", type: "file", content: "new" },
  { path: "d/sub", type: "dir", mtime: [5, 5] },
  { path: "f/child", type: "file", content: "f is a directory now" },
  { path: "missing/parent/file", type: "file", content: "nobody describes its parents" },
  { path: "twice", type: "file", content: "first", mode: 0o600 },
  { path: "twice", type: "file", content: "second" },
  { path: "to-link", type: "hardlink", link: "s" },
  { path: "across", type: "hardlink", link: "g/kept" },
];

for (const [order, upper] of Object.entries({
  "before what else the layer has": [root, ...markers, ...others],
  "behind it": [root, ...others, ...markers],
  "between it": [root, ...others.slice(0, 3), ...markers, ...others.slice(3)],
}) as [string, TestLayer][]) {
  test(`whiteouts and opaque markers ${order} hide what overlayfs hides`, async () => {
    const lower: TestLayer = [
      root,
      { path: "d", type: "dir", mode: 0o750, mtime: [2, 0] },
      { path: "d/a", type: "file", content: "hidden" },
      { path: "d/sub", type: "dir", mtime: [3, 0] },
      { path: "d/sub/x", type: "file", content: "hidden" },
      { path: "f", type: "file", content: "removed" },
      { path: "g", type: "dir", mtime: [4, 0] },
      { path: "g/y", type: "file", content: "removed" },
      { path: "g/kept", type: "file", content: "kept", mtime: [-1, 1] },
      { path: "s", type: "symlink", link: "g" },
    ];
    const last: TestLayer = [root, { path: "f", type: "file", content: "a file again" }];
    const random = new SeededRandom(1);
    const packed = [lower, upper, last].map((layer) => packLayer(layer, "gzip", random));
    const image = await acquire(await room.mounts(), await room.imageOfBlobs(packed.map(({ blob }) => blob)));
    const expected = await oracle.unpack(packed.map(({ tar }) => tar));
    const folders = ["", "d", "d/sub", "g", "missing", "missing/parent"];
    const options = { anyTime: (path: string) => folders.includes(path), linksMayBreak: true };
    expect(await diffTrees(image.root, expected, options)).toEqual([]);
    await image.release();
  });
}
