import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeErofs } from "../../src/index/erofs.ts";
import { IndexError } from "../../src/index/error.ts";
import { mergeLayers } from "../../src/index/merge.ts";
import type { SeededRandom } from "../../src/index/tar.test-kit.ts";
import { inodeOf, type Tree } from "../../src/index/tree.ts";
import { inodeTypes } from "../../src/index/tree-inode.ts";
import { Bench } from "../../src/index/tree-oracle.test-kit.ts";
import type { TocEntry } from "../../src/index/types.ts";
import { tryRun } from "../../src/std/spawn.ts";
import { randomTar } from "./tar-maker.ts";
import { readArchive, type TarReading } from "./tar-target.ts";
import { promise, refused, type Target } from "./target.ts";

const layerBytes = Buffer.from("next layer\0");
/** Every so many images the kernel mounts one. */
const mountEvery = 25;
let images = 0;

/** Layers that meet in every way: refused by name, or an image that fsck.erofs finds sound and the kernel shows as it is. */
export const erofsTarget: Target = {
  name: "erofs",
  make(random) {
    const layers = Array.from({ length: 1 + random.next(4) }, () => randomTar(random, random.next(4) === 0));
    return Buffer.concat(layers.flatMap((layer) => [layer, layerBytes]));
  },
  async run(input, random, folder) {
    images += 1;
    const image = join(folder, `erofs-${images}`);
    let tree: Tree | undefined;
    const layers: TarReading[] = [];
    await refused(IndexError, () => void layers.push(...split(input).map((tar) => readArchive(tar, [4096]))));
    const tocs = [...layers.map(({ entries }) => entries), ...manyNames(random)];
    const devices = tocs.map((_, at) => ({ blobSizeBytes: layers[at]?.blobBytes ?? 0 }));
    const refusal = await refused(IndexError, async () => {
      const merged = mergeLayers(tocs);
      await writeErofs(merged, devices, image);
      tree = merged;
    });
    if (refusal !== undefined) {
      promise(
        ["bad_layer", "limit_exceeded"].includes(refusal.code),
        () => `refused by ${refusal.code}: ${refusal.message}`,
      );
      return;
    }
    const blobs = await Promise.all(
      devices.map(async ({ blobSizeBytes }, at) => {
        const path = `${image}.blob${at}`;
        await writeFile(path, "");
        await truncate(path, blobSizeBytes);
        return path;
      }),
    );
    const check = await tryRun(["fsck.erofs", ...blobs.map((blob) => `--device=${blob}`), image]);
    promise(check.exitCode === 0, () => `fsck.erofs: ${check.stdout}${check.stderr}`);
    if (images % mountEvery === 1 && tree !== undefined) await compareMounted(tree, image, blobs);
  },
};

function split(input: Uint8Array): Buffer[] {
  const bytes = Buffer.from(input);
  const layers: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(layerBytes, at);
    layers.push(bytes.subarray(at, end < 0 ? bytes.length : end));
    at = end < 0 ? bytes.length : end + layerBytes.length;
  }
  return layers;
}

/** Now and then one more layer with enough names of all lengths to fill blocks exactly, almost, and by one too many. */
function manyNames(random: SeededRandom): TocEntry[][] {
  if (random.next(4) > 0) return [];
  const common = {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeSeconds: -1,
    mtimeNanos: 999_999_999,
    size: 0,
    blobOffset: -1,
  };
  const length = 1 + random.next(250);
  const xattrs = random.next(2) === 0 ? [["user.x", random.bytes(random.next(5000))] as const] : undefined;
  return [
    Array.from({ length: random.next(700) }, (_, at) => ({
      ...common,
      type: random.pick(["file", "symlink", "fifo"] as const),
      path: `${random.pick(["a", "many"])}/${String(at).padStart(length, "n")}`,
      ...(at % 50 === 0 && xattrs !== undefined ? { xattrs } : {}),
    })).map(
      (entry): TocEntry =>
        entry.type === "symlink" ? { ...entry, link: "t".repeat(1 + random.next(4095)) } : entry,
    ),
  ];
}

async function compareMounted(tree: Tree, image: string, blobs: readonly string[]): Promise<void> {
  const own = await Bench.open();
  const root = await own.mount(image, blobs);
  try {
    const todo: [number, Buffer][] = [[tree.root, Buffer.from(root)]];
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      const [directory, path] = next;
      const entries = tree.entries(directory);
      const shown = readdirSync(path, { encoding: "buffer" }).map((name) =>
        Buffer.from(name).toString("latin1"),
      );
      promise(
        Bun.deepEquals(shown.toSorted(), [...entries.keys()].toSorted()),
        () => `${path} shows other names`,
      );
      for (const [name, entry] of entries) {
        const below = Buffer.concat([path, Buffer.from(`/${name}`, "latin1")]);
        const inode = inodeOf(entry);
        compareInode(tree, inode, below);
        if (tree.isDirectory(inode)) todo.push([inode, below]);
      }
    }
  } finally {
    await own.close();
  }
}

function compareInode(tree: Tree, inode: number, path: Buffer): void {
  const stat = lstatSync(path, { bigint: true });
  const facts = [Number(stat.mode), Number(stat.uid), Number(stat.gid)];
  const expected = [tree.mode[inode], tree.uid[inode], tree.gid[inode]];
  promise(Bun.deepEquals(facts, expected), () => `${path} has ${facts}, not ${expected}`);
  const nanos = BigInt(tree.mtimeSeconds[inode] ?? 0) * 1_000_000_000n + BigInt(tree.mtimeNanos[inode] ?? 0);
  promise(stat.mtimeNs === nanos, () => `${path} is of ${stat.mtimeNs}, not ${nanos}`);
  const type = tree.typeOf(inode);
  if (type === inodeTypes.file)
    promise(Number(stat.size) === tree.size[inode], () => `${path} has another size`);
  if (type !== inodeTypes.symlink) return;
  const target = Buffer.from(readlinkSync(path, { encoding: "buffer" })).toString("latin1");
  promise(target === tree.links.get(inode), () => `${path} leads elsewhere`);
}
