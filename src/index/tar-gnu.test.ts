import { afterAll, beforeAll, expect, test } from "bun:test";
import { lstatSync, readlinkSync } from "node:fs";
import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  open,
  readFile,
  rm,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { run } from "../std/spawn.ts";
import { checkLayer, indexBytes } from "./layer.test-kit.ts";
import { SeededRandom } from "./tar.test-kit.ts";

let directory: string;
let tree: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-gnu-tar-"));
  tree = join(directory, "tree");
  const random = new SeededRandom(99);
  const deep = join(tree, ...Array.from({ length: 12 }, (_, at) => `folder-with-a-long-name-${at}`));
  await mkdir(deep, { recursive: true });
  await mkdir(join(tree, "bin"));
  await writeFile(join(deep, "f".repeat(200)), random.bytes(70_000));
  await writeFile(join(tree, "bin/setuid"), random.bytes(4096));
  await chmod(join(tree, "bin/setuid"), 0o4711);
  await writeFile(join(tree, "empty"), "");
  await writeFile(join(tree, "umlaut-ä-\u{1f980}"), random.bytes(5000));
  await symlink("x".repeat(180), join(tree, "long-link"));
  await symlink("bin/setuid", join(tree, "link"));
  await link(join(tree, "bin/setuid"), join(tree, "hard"));
  await run(["mkfifo", join(tree, "pipe")]);
  await run(["mknod", join(tree, "null"), "c", "1", "3"]);
  const sparse = await open(join(tree, "sparse"), "w");
  for (const at of [0, 200_000, 1_000_000, 1_100_000, 1_200_000, 3_000_000, 9_000_000]) {
    await sparse.write(random.bytes(5000), 0, 5000, at);
  }
  await sparse.truncate(12_000_000);
  await sparse.close();
  await utimes(join(tree, "empty"), 1, 0.5);
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function checkTree(options: readonly string[], differs: readonly string[] = []) {
  const path = join(directory, "layer.tar");
  await run(["tar", "-C", tree, "--sort=name", ...options, "-cf", path, "."]);
  const tar = await readFile(path);
  const out = { spanPath: join(directory, "span"), tocPath: join(directory, "toc") };
  const layer = gzipSync(tar);
  const { entries, blob } = await checkLayer(layer, tar, out, await indexBytes(layer, out));
  const names = (await run(["find", tree, "-printf", "%P\\0"])).stdout.split("\0").slice(0, -1);
  expect(entries.length).toBe(names.length - differs.length);
  for (const entry of entries) {
    const name = Buffer.from(entry.path, "latin1").toString();
    const real = join(tree, name);
    const stat = lstatSync(real);
    if (entry.type === "hardlink") {
      expect(stat.ino).toBe(lstatSync(join(tree, entry.link ?? "")).ino);
      continue;
    }
    const type = {
      file: stat.isFile(),
      dir: stat.isDirectory(),
      symlink: stat.isSymbolicLink(),
      fifo: stat.isFIFO(),
      char: stat.isCharacterDevice(),
    };
    expect(type[entry.type as keyof typeof type]).toBe(true);
    expect([entry.mode, entry.uid, entry.gid]).toEqual([stat.mode & 0o7777, stat.uid, stat.gid]);
    expect(entry.mtimeSeconds).toBe(Math.floor(stat.mtimeMs / 1000));
    if (entry.type === "symlink") expect(entry.link).toBe(readlinkSync(real));
    if (entry.type === "char") expect([entry.deviceMajor, entry.deviceMinor]).toEqual([1, 3]);
    if (entry.type === "file") {
      const data = await readFile(real);
      expect(entry.size).toBe(data.length);
      if (data.length === 0) continue;
      expect(data.equals(blob.subarray(entry.blobOffset, entry.blobOffset + data.length))).toBe(true);
    }
  }
  return { entries, tar };
}

test.each([["pax"], ["gnu"], ["posix"]])("reads what GNU tar writes in the format %s", async (format) => {
  const { entries } = await checkTree([`--format=${format}`]);
  const empty = entries.find((entry) => entry.path === "empty");
  expect(empty?.mtimeNanos).toBe(format === "gnu" ? 0 : 500_000_000);
});

test.each([
  ["gnu", "0.0"],
  ["pax", "0.0"],
  ["pax", "0.1"],
  ["pax", "1.0"],
])("reads sparse files that GNU tar writes in the format %s, version %s", async (format, version) => {
  const { tar } = await checkTree([`--format=${format}`, "-S", `--sparse-version=${version}`]);
  expect(tar.length).toBeLessThan(2_000_000);
});

test.each([["ustar"], ["v7"]])("reads what GNU tar writes in the format %s", async (format) => {
  const excluded = ["./folder-with-a-long-name-0", "./long-link"];
  if (format === "v7") excluded.push("./pipe", "./null");
  const below = format === "v7" ? 16 : 14;
  const folded = Array.from({ length: below }, () => "");
  await checkTree([`--format=${format}`, ...excluded.map((name) => `--exclude=${name}`)], folded);
});

test("reads extended attributes that GNU tar writes, raw values and all", async () => {
  const file = join(tree, "bin/setuid");
  await run(["setfattr", "-n", "user.binary", "-v", "0x00ff0a3d0a", file]);
  await run([
    "setfattr",
    "-n",
    "security.capability",
    "-v",
    "0x0100000200200000000000000000000000000000",
    file,
  ]);
  const { entries } = await checkTree(["--format=pax", "--xattrs", "--xattrs-include=*"]);
  const xattrs = new Map(entries.find((entry) => entry.path === "bin/setuid")?.xattrs);
  expect(xattrs.get("user.binary")).toEqual(Uint8Array.of(0, 0xff, 0x0a, 0x3d, 0x0a));
  expect(xattrs.get("security.capability")?.length).toBe(20);
});
