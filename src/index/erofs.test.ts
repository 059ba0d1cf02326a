import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { open, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run, tryRun } from "../std/spawn.ts";
import { writeErofs } from "./erofs.ts";
import { directorySize } from "./erofs-directory.ts";
import { planErofs } from "./erofs-plan.ts";
import { mergeLayers } from "./merge.ts";
import { diffTrees } from "./tree-diff.test-kit.ts";
import { indexTestLayer, type TestLayer } from "./tree-layers.test-kit.ts";
import { Bench } from "./tree-oracle.test-kit.ts";
import { randomLayers } from "./tree-random.test-kit.ts";
import type { TocEntry } from "./types.ts";

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.open();
});
afterEach(async () => {
  await bench.close();
});

const plain = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, mtimeNanos: 0, size: 0, blobOffset: -1 };
const file = (path: string, more: Partial<TocEntry> = {}): TocEntry => ({
  ...plain,
  path,
  type: "file",
  ...more,
});

async function write(
  name: string,
  ...layers: TocEntry[][]
): Promise<{ path: string; sha256: string; sizeBytes: number }> {
  const path = bench.path(name);
  const devices = layers.map(() => ({ blobSizeBytes: 4096 * 1024 }));
  return { path, ...(await writeErofs(mergeLayers(layers), devices, path)) };
}

test("the same layers give the same bytes, whose size and hash are returned", async () => {
  const layers = randomLayers(7, 3, 80).map((layer) => indexTestLayer(layer).toc);
  const [one, other] = [await write("one", ...layers), await write("other", ...layers)];
  const bytes = await readFile(one.path);
  expect(bytes.equals(await readFile(other.path))).toBe(true);
  expect(one.sizeBytes).toBe(bytes.length);
  expect(one.sha256).toBe(new Bun.CryptoHasher("sha256").update(bytes).digest("hex"));
  const changed = await write("changed", ...layers, [file("one-more")]);
  expect(await uuidOf(changed.path)).not.toEqual(await uuidOf(one.path));
});

async function uuidOf(path: string): Promise<Buffer> {
  return (await readFile(path)).subarray(1024 + 48, 1024 + 64);
}

test("the file system's own checker finds nothing to complain about", async () => {
  const layers = randomLayers(8, 4, 120);
  await bench.mountLayers(layers);
  const image = bench.path("image-0.erofs");
  const devices = layers.map((_, at) => `--device=${image}.blob${at}`);
  const check = await tryRun(["fsck.erofs", ...devices, image]);
  expect([check.exitCode, check.stderr.trim()]).toEqual([0, ""]);
  const dump = await run(["dump.erofs", ...devices, "-s", image]);
  expect(dump.stdout).toContain("sb_csum mtime chunked_file device_table");
});

test("the checker does not read past an image whose last inode ends with a block", async () => {
  const pipes = (count: number): TocEntry[] =>
    Array.from({ length: count }, (_, at) => file(`p${at}`, { type: "fifo" }));
  const blob = await blobOf(4096 * 1024);
  let checked = 0;
  for (let count = 1; count < 2000; count += 1) {
    const { inodesEnd } = await planErofs(mergeLayers([pipes(count)]), 1);
    if (inodesEnd % 4096 !== 0) continue;
    const { path } = await write(`pipes-${count}`, pipes(count));
    const check = await tryRun(["fsck.erofs", `--device=${blob}`, path]);
    expect([count, check.exitCode, check.stderr]).toEqual([count, 0, ""]);
    checked += 1;
    if (checked === 3) break;
  }
  expect(checked).toBe(3);
});

test("a folder whose access control list is none can be opened", async () => {
  const xattrs = { "system.posix_acl_access": "no list", "system.posix_acl_default": "neither" };
  const root = await bench.mountLayers([
    [
      { path: "d", type: "dir", xattrs },
      { path: "d/f", type: "fifo" },
    ],
  ]);
  expect(readdirSync(join(root, "d"))).toEqual(["f"]);
});

test("an image with one changed byte in its first block is not mounted", async () => {
  const { path } = await write("image", [file("a")]);
  await bench.mount(path, [await blobOf(4096)]);
  const other = bench.path("broken");
  const bytes = await readFile(path);
  bytes[1024 + 60] = (bytes[1024 + 60] ?? 0) ^ 1;
  await writeFile(other, bytes);
  expect(bench.mount(other, [await blobOf(4096)])).rejects.toThrow();
});

let blobs = 0;
async function blobOf(sizeBytes: number): Promise<string> {
  blobs += 1;
  const path = bench.path(`blob-${blobs}`);
  await writeFile(path, "");
  await truncate(path, sizeBytes);
  return path;
}

test("directories that fill blocks exactly, almost, or by one entry more show every name", async () => {
  const layer: TocEntry[] = [];
  const expected = new Map<string, string[]>();
  // "." and ".." take 27 bytes; an entry takes 12 and its name.
  for (const count of [1, 14, 15, 16, 30, 31, 46, 200]) {
    for (const last of [1, 100, 240, 241, 242, 243, 255]) {
      const folder = `d-${count}-${last}`;
      const names = Array.from(
        { length: count },
        (_, at) => `${String(at).padStart(5, "0")}${"n".repeat(246)}`,
      );
      names.push("z".repeat(last));
      expected.set(folder, names.toSorted());
      layer.push(
        file(folder, { type: "dir", mode: 0o755 }),
        ...names.map((name) => file(`${folder}/${name}`)),
      );
    }
  }
  const { path } = await write("image", layer);
  const root = await bench.mount(path, [await blobOf(4096)]);
  for (const [folder, names] of expected) {
    expect(readdirSync(join(root, folder)).sort()).toEqual(names);
    for (const name of names) expect(lstatSync(join(root, folder, name)).isFile()).toBe(true);
  }
});

test("names sort by their bytes, those before the dots included", async () => {
  const names = [
    "!",
    "-",
    ".",
    "..",
    "...",
    "/",
    "0",
    "A",
    "a",
    "a\xff",
    "a ",
    "~",
    "\x7f",
    "\x80",
    "\xff",
    "\x01",
  ];
  const real = names.filter((name) => !["", ".", "..", "/"].includes(name));
  const layer: TestLayer = real.map((path) => ({ path, type: "file", content: path }));
  const root = await bench.mountLayers([layer]);
  for (const name of real) {
    const path = Buffer.concat([Buffer.from(`${root}/`), Buffer.from(name, "latin1")]);
    expect(readFileSync(path).toString()).toBe(name);
  }
  expect(readdirSync(root).length).toBe(real.length);
  expect(directorySize([])).toBe(0);
});

test("a directory of 200,000 entries is listed whole and looked up by name", async () => {
  const layer = Array.from({ length: 200_000 }, (_, at) => file(`big/entry-${at}`));
  const { path } = await write("image", layer);
  const root = await bench.mount(path, [await blobOf(4096)]);
  expect(new Set(readdirSync(join(root, "big"))).size).toBe(200_000);
  for (const at of [0, 1, 99_999, 100_000, 199_999])
    expect(existsSync(join(root, `big/entry-${at}`))).toBe(true);
  expect(existsSync(join(root, "big/entry-200000"))).toBe(false);
});

test("files of terabytes need one chunk, and are read at their end", async () => {
  const sizeBytes = 5 * 1024 ** 4 + 3;
  const blob = await blobOf(0);
  const start = 4096 * 7;
  const end = Math.ceil((start + sizeBytes) / 4096) * 4096;
  const handle = await open(blob, "r+");
  await handle.write("end", start + sizeBytes - 3);
  await handle.close();
  await truncate(blob, end);
  const image = bench.path("image");
  await writeErofs(
    mergeLayers([[file("huge", { size: sizeBytes, blobOffset: start })]]),
    [{ blobSizeBytes: end }],
    image,
  );
  const root = await bench.mount(image, [blob]);
  expect(lstatSync(join(root, "huge")).size).toBe(sizeBytes);
  const huge = await open(join(root, "huge"), "r");
  try {
    const { buffer } = await huge.read(Buffer.alloc(6), 0, 6, sizeBytes - 6);
    expect(buffer.toString()).toBe("\0\0\0end");
  } finally {
    await huge.close();
  }
});

test("the longest link targets are followed as they are, inline or in a block of their own", async () => {
  const targets = [1, 59, 4000, 4031, 4032, 4033, 4095].map((length) => "t".repeat(length));
  const xattrs: TocEntry["xattrs"] = [["trusted.x", new Uint8Array(500)]];
  const layer = targets.flatMap((link, at) => [
    file(`plain-${at}`, { type: "symlink", link }),
    file(`with-${at}`, { type: "symlink", link, xattrs }),
  ]);
  const { path } = await write("image", layer);
  const root = await bench.mount(path, [await blobOf(4096)]);
  for (const [at, target] of targets.entries()) {
    expect(readlinkSync(join(root, `plain-${at}`))).toBe(target);
    expect(readlinkSync(join(root, `with-${at}`))).toBe(target);
  }
});

test("extended attributes of any size that Linux has are shown, on files, directories and links", async () => {
  const value = (length: number) => Uint8Array.from({ length }, (_, at) => at % 251);
  const sizes = [0, 1, 3, 4, 3900, 4000, 4096, 5000, 65_535];
  const layer = sizes.flatMap((size, at) => [
    file(`f${at}`, {
      size: 1,
      blobOffset: 0,
      xattrs: [
        ["user.x", value(size)],
        ["trusted.y", value(size)],
      ],
    }),
    file(`d${at}`, { type: "dir", mode: 0o755, xattrs: [["user.x", value(size)]] }),
    file(`d${at}/inside`),
    file(`l${at}`, { type: "symlink", link: "t".repeat(300), xattrs: [["security.z", value(size)]] }),
  ]);
  const { path } = await write("image", layer);
  const root = await bench.mount(path, [await blobOf(4096)]);
  for (const [at, size] of sizes.entries()) {
    const hex = Buffer.from(value(size)).toString("hex");
    for (const [name, key] of [
      [`f${at}`, "user.x"],
      [`f${at}`, "trusted.y"],
      [`d${at}`, "user.x"],
      [`l${at}`, "security.z"],
    ] as const) {
      const { stdout } = await run([
        "getfattr",
        "-h",
        "--absolute-names",
        "-e",
        "hex",
        "-n",
        key,
        join(root, name),
      ]);
      expect(stdout).toContain(size === 0 ? `${key}` : `${key}=0x${hex}`);
    }
    expect(readlinkSync(join(root, `l${at}`)).length).toBe(300);
    expect(readdirSync(join(root, `d${at}`))).toEqual(["inside"]);
    expect(readFileSync(join(root, `f${at}`)).length).toBe(1);
  }
});

test("attributes that do not fit behind an inode are refused", async () => {
  const xattrs = Array.from({ length: 5 }, (_, at) => [`user.${at}`, new Uint8Array(65_535)] as const);
  const error = await write("image", [file("f", { xattrs })]).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "limit_exceeded" });
});

test("a file that lies outside of its layer's blob is refused and nothing is left behind", async () => {
  for (const place of [
    { size: 4097, blobOffset: 4096 * 1023 },
    { size: 1, blobOffset: -1 },
    { size: 1, blobOffset: 17 },
  ]) {
    const error = await write("image", [file("f", place)]).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "bad_layer" });
    expect(existsSync(bench.path("image"))).toBe(false);
  }
});

test("sixty layers each have their device", async () => {
  const layers: TestLayer[] = Array.from({ length: 60 }, (_, at) => [
    { path: `f${at}`, type: "file", content: `layer ${at}` },
  ]);
  const root = await bench.mountLayers(layers);
  for (const at of layers.keys()) expect(readFileSync(join(root, `f${at}`), "utf8")).toBe(`layer ${at}`);
});

test("an abort stops the writer and leaves nothing behind", async () => {
  const path = bench.path("image");
  const tree = mergeLayers([Array.from({ length: 50_000 }, (_, at) => file(`d${at % 100}/${at}`))]);
  const writing = writeErofs(tree, [{ blobSizeBytes: 0 }], path, AbortSignal.abort(new Error("enough")));
  expect(writing).rejects.toThrow("enough");
  await writing.catch(() => undefined);
  expect(existsSync(path)).toBe(false);
});

test("the comparison of trees sees every kind of difference", async () => {
  const left: TestLayer = [
    { path: "", type: "dir" },
    { path: "mode", type: "file", mode: 0o600 },
    { path: "time", type: "file", mtime: [1, 1] },
    { path: "owner", type: "file", uid: 1 },
    { path: "content", type: "file", content: "a" },
    { path: "kind", type: "file" },
    { path: "link", type: "symlink", link: "a" },
    { path: "h1", type: "file" },
    { path: "h2", type: "hardlink", link: "h1" },
    { path: "x", type: "file", xattrs: { "user.a": "1" } },
    { path: "dev", type: "char", device: [1, 1] },
    { path: "only", type: "file" },
  ];
  const right: TestLayer = [
    { path: "", type: "dir" },
    { path: "mode", type: "file", mode: 0o601 },
    { path: "time", type: "file", mtime: [1, 2] },
    { path: "owner", type: "file", uid: 2 },
    { path: "content", type: "file", content: "b" },
    { path: "kind", type: "fifo" },
    { path: "link", type: "symlink", link: "b" },
    { path: "h1", type: "file" },
    { path: "h2", type: "file" },
    { path: "x", type: "file", xattrs: { "user.a": "2" } },
    { path: "dev", type: "char", device: [1, 2] },
  ];
  const [a, b] = [await bench.mountLayers([left]), await bench.mountLayers([right])];
  const seen = new Set((await diffTrees(a, b)).map((line) => line.split(":")[0]));
  expect([...seen].sort()).toEqual(
    left
      .slice(1)
      .map(({ path }) => JSON.stringify(path))
      .sort(),
  );
  expect(await diffTrees(a, a)).toEqual([]);
});
