import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openToc, TocWriter } from "./layer-toc.ts";
import type { TocEntry } from "./types.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-toc-"));
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

const plain: TocEntry = {
  path: "usr/bin/caf\xe9",
  type: "file",
  mode: 0o4755,
  uid: 4294967295,
  gid: 0,
  mtimeSeconds: -62135596800,
  mtimeNanos: 999_999_999,
  size: 2 ** 52 + 1,
  blobOffset: 4096 * 2 ** 40,
};
const samples: TocEntry[] = [
  plain,
  { ...plain, path: "", type: "dir", size: 0, blobOffset: -1 },
  { ...plain, path: "a", type: "symlink", link: "", size: 0, blobOffset: -1 },
  { ...plain, path: "b", type: "hardlink", link: "usr/bin/caf\xe9", size: 0, blobOffset: -1 },
  {
    ...plain,
    path: "dev/null",
    type: "char",
    deviceMajor: 1,
    deviceMinor: 4294967295,
    size: 0,
    blobOffset: -1,
  },
  { ...plain, path: "gone", type: "whiteout", size: 0, blobOffset: -1 },
  {
    ...plain,
    path: "x".repeat(4096),
    xattrs: [
      ["security.capability", Uint8Array.from({ length: 20 }, (_, at) => 255 - at)],
      ["user.empty", new Uint8Array(0)],
      ["user.\xff", new Uint8Array(65536).fill(7)],
    ],
  },
];

async function write(name: string, entries: Iterable<TocEntry>): Promise<string> {
  const path = join(directory, name);
  const writer = TocWriter.create(path);
  for (const entry of entries) writer.add(entry);
  writer.finish();
  return path;
}

function failure(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return "nothing thrown";
}

test("gives back every field of every entry exactly", async () => {
  const toc = openToc(await write("every", samples));
  expect(toc.entries).toBe(samples.length);
  expect([...toc]).toEqual(samples);
  expect([...toc]).toEqual(samples);
});

test("streams tables that are larger than its buffer", async () => {
  const many = Array.from({ length: 30_000 }, (_, at) => ({
    ...plain,
    path: `p/${at}`.padEnd(60 + (at % 90), "x"),
  }));
  const big = {
    ...plain,
    xattrs: Array.from({ length: 40 }, (_, at) => [`user.${at}`, new Uint8Array(65536)] as const),
  };
  const toc = openToc(await write("many", [...many, big, plain]));
  let at = 0;
  for (const entry of toc) {
    if (at < many.length) expect(entry.path).toBe(many[at]?.path ?? "");
    at += 1;
  }
  expect(at).toBe(many.length + 2);
});

test("refuses a table at every length that cuts something off", async () => {
  const path = await write("cut", samples.slice(0, 6));
  const whole = await readFile(path);
  for (let length = 0; length < whole.length; length += 1) {
    await truncate(path, length);
    expect(failure(() => [...openToc(path)])).toBe("corrupt_index");
  }
});

test("refuses a table in which any one byte changed", async () => {
  const path = await write("changed", samples.slice(0, 6));
  const whole = await readFile(path);
  for (let at = 0; at < whole.length; at += 1) {
    const changed = Buffer.from(whole);
    changed[at] = (changed[at] ?? 0) ^ 0x41;
    await writeFile(path, changed);
    const code = failure(() => [...openToc(path)]);
    // Bytes 12 to 15 of the header are covered by the checksum too.
    expect(code).toBe("corrupt_index");
  }
});

test("refuses a table that was never finished, and one that is not there", async () => {
  const path = join(directory, "unfinished");
  const writer = TocWriter.create(path);
  writer.add(plain);
  writer.close();
  expect(failure(() => openToc(path))).toBe("corrupt_index");
  expect(failure(() => openToc(join(directory, "absent")))).toBe("not_found");
});

test.each([
  ["a size that is a fraction", { size: 0.5 }],
  ["a negative size", { size: -4096 }],
  ["a size that is no number", { size: Number.NaN }],
  ["a place between two blocks", { blobOffset: 4097 }],
  ["no place for its bytes", { blobOffset: -1 }],
  ["a time that is no number", { mtimeSeconds: Number.NaN }],
  ["a time beyond what numbers hold", { mtimeSeconds: -1e226 }],
  ["more nanoseconds than a second has", { mtimeNanos: 1e9 }],
  ["a mode with a file type in it", { mode: 0o100644 }],
])("refuses an entry with %s, though the table is signed", async (_, wrong) => {
  const path = await write("unsound", [{ ...plain, ...wrong }]);
  expect(failure(() => [...openToc(path)])).toBe("corrupt_index");
});
