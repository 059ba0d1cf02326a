import { afterEach, beforeEach, expect, test } from "bun:test";
import { closeSync, ftruncateSync, lstatSync, openSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { run } from "../std/spawn.ts";
import { TocWriter } from "./layer-toc.ts";
import { defaultIndexLimits } from "./limits.ts";
import { mergeImageInChild } from "./merge-child.ts";
import { Bench } from "./tree-oracle.test-kit.ts";

let bench: Bench;
beforeEach(async () => {
  bench = await Bench.open();
});
afterEach(async () => {
  await bench.close();
});

const count = 200_000;
const nameOf = (at: number): string => `a-name-of-usual-length-${at}`;

test("a directory of 200,000 files is merged in bounded memory, listed, and searched", async () => {
  const toc = TocWriter.create(bench.path("toc"));
  const common = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 1, mtimeNanos: 0 };
  for (const path of ["", "large", "large/~deep"])
    toc.add({ ...common, mode: 0o755, path, type: "dir", size: 0, blobOffset: -1 });
  for (let at = 0; at < count; at += 1)
    toc.add({
      ...common,
      path: `large/${nameOf(at)}`,
      type: "file",
      size: 1 + (at % 4096),
      blobOffset: at * 4096,
    });
  toc.finish();
  const request = {
    layers: [{ tocPath: bench.path("toc"), blobSizeBytes: count * 4096 }],
    erofsPath: bench.path("erofs"),
  };
  const limits = { ...defaultIndexLimits, mergeMemoryBytesMax: 300 * 1024 * 1024 };
  const merged = await mergeImageInChild(request, new AbortController().signal, { limits });
  expect(merged.inodes).toBe(count + 3);
  expect(merged.sizeBytes).toBeLessThan(count * 140);
  await run(["fsck.erofs", `--device=${emptyBlob()}`, request.erofsPath]);

  const large = join(await bench.mount(request.erofsPath, [bench.path("blob")]), "large");
  const names = readdirSync(large);
  expect(names.length).toBe(count + 1);
  expect(new Set(names).size).toBe(count + 1);
  for (const at of [0, 1, 99_999, count - 2, count - 1])
    expect(lstatSync(join(large, nameOf(at))).size).toBe(1 + (at % 4096));
  expect(lstatSync(join(large, "~deep")).isDirectory()).toBe(true);
  for (const missing of ["", nameOf(count), "0", "~~", "a-name-of-usual-length-", "\x01"]) {
    const path = join(large, `${missing}!`);
    expect(lstatSync(path, { throwIfNoEntry: false })).toBeUndefined();
  }
});

/** A blob without a byte: nothing is read of it. */
function emptyBlob(): string {
  const path = bench.path("blob");
  const file = openSync(path, "w");
  ftruncateSync(file, count * 4096);
  closeSync(file);
  return path;
}
