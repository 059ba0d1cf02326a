import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { LayerBlob } from "./blob.ts";
import { crc32c } from "./crc32c.test-kit.ts";
import { Engine } from "./engine.ts";
import { Bench, blobOf, fetched, patterned, plainLayer, type TestLayer } from "./layer.test-kit.ts";

const layer = plainLayer(patterned(300_000), 65_536);
const flagsAt = 12;

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => {
  bench[Symbol.dispose]();
});

async function fillSpans(blob: LayerBlob, of: TestLayer, first: number, last = first): Promise<void> {
  const results = await Engine.get().fill(blob, first, last, fetched(of, first, last));
  for (const result of results) expect(result.status).toBe("present");
}

/** Stores two spans and closes cleanly, lets `change` damage the files, and opens again. */
async function reopened(
  change: (paths: ReturnType<Bench["paths"]>) => void,
  verify: "stamp" | "all" = "stamp",
): Promise<LayerBlob> {
  const first = bench.open(layer);
  await fillSpans(first, layer, 2, 3);
  await first.release();
  change(bench.paths("layer"));
  return LayerBlob.open({ ...bench.paths("layer"), verify });
}

/** What proving finds: how many spans are dropped and how many remain. The remaining ones hold the right bytes. */
async function proved(blob: LayerBlob): Promise<[dropped: number, left: number]> {
  const dropped = await blob.prove();
  const left = blob.presentCount();
  const file = readFileSync(blob.cachePath);
  for (let span = 0; span < blob.spanCount; span++) {
    const { blobOffset, tarLength } = blob.span(span);
    const [from, to] = [blobOffset, blobOffset + tarLength];
    if (blob.isPresent(span))
      expect(file.subarray(from, to).equals(blobOf(layer).subarray(from, to))).toBe(true);
  }
  await fillSpans(blob, layer, 0, 4);
  expect(blob.complete).toBe(true);
  await blob.release();
  expect(readFileSync(blob.cachePath).equals(blobOf(layer))).toBe(true);
  return [dropped, left];
}

function editMap(mapPath: string, change: (map: Buffer) => void): void {
  const map = readFileSync(mapPath);
  change(map);
  writeFileSync(mapPath, map);
}

function writeInto(path: string, at: number, bytes: Uint8Array): void {
  const fd = openSync(path, "r+");
  writeSync(fd, bytes, 0, bytes.length, at);
  closeSync(fd);
}

test("a map that was not closed cleanly, as after a crash, has its spans proved", async () => {
  const blob = await reopened(({ mapPath }) => editMap(mapPath, (map) => void map.writeUInt8(0, flagsAt)));
  expect([blob.presentCount(), blob.nextMissing(0), blob.nextMissing(2)]).toEqual([2, 0, 4]);
  expect(await proved(blob)).toEqual([0, 2]);
});

test("after a power cut, spans whose data did not reach the disk are found", async () => {
  const blob = await reopened(({ mapPath, cachePath }) => {
    editMap(mapPath, (map) => void map.writeUInt8(0, flagsAt));
    writeInto(cachePath, 2 * 65_536 + 4096, Buffer.alloc(8192));
  });
  expect(await proved(blob)).toEqual([1, 1]);
});

test("bits set by hand in a map are found, though it says that it is clean", async () => {
  const blob = await reopened(({ mapPath }) => editMap(mapPath, (map) => void map.writeUInt8(0x1f, 256)));
  expect(await proved(blob)).toEqual([3, 2]);
});

test("a map with bits beyond the last span is discarded with its data", async () => {
  const blob = await reopened(({ mapPath }) => editMap(mapPath, (map) => void map.writeUInt8(0xff, 256)));
  expect(blob.presentCount()).toBe(0);
  expect(readFileSync(blob.cachePath).every((byte) => byte === 0)).toBe(true);
  await blob.release();
});

test("an older copy of the map, put back, is believed no more than what it says and the bytes show", async () => {
  const first = bench.open(layer);
  await fillSpans(first, layer, 1);
  await first.release();
  copyFileSync(bench.path("layer.map"), bench.path("older.map"));
  const blob = await reopened(({ mapPath, cachePath }) => {
    copyFileSync(bench.path("older.map"), mapPath);
    writeInto(cachePath, 65_536, Buffer.alloc(10));
  });
  expect(await proved(blob)).toEqual([1, 0]);
});

test("a cache file that was only touched is proved, and believed again afterwards", async () => {
  const blob = await reopened(({ cachePath }) => utimesSync(cachePath, 1, 1));
  expect(blob.presentCount()).toBe(2);
  expect(await blob.prove()).toBe(0);
  await blob.release();
  expect(readFileSync(bench.path("layer.map"))[flagsAt]).toBe(1);
});

test("a byte that somebody changed in the file is found by its times", async () => {
  const blob = await reopened(({ cachePath }) => {
    const { atime, mtime } = statSync(cachePath);
    writeInto(cachePath, 3 * 65_536, Buffer.of(1 ^ blobOf(layer)[3 * 65_536]!));
    utimesSync(cachePath, atime, mtime);
  });
  expect(await proved(blob)).toEqual([1, 1]);
});

/** As a disk does it: a byte changes and nothing else, so the map is made to fit the times that the change left. */
function rot({ cachePath, mapPath }: { cachePath: string; mapPath: string }): void {
  writeInto(cachePath, 3 * 65_536, Buffer.of(1 ^ blobOf(layer)[3 * 65_536]!));
  const { mtimeNs, ctimeNs, blocks } = statSync(cachePath, { bigint: true });
  editMap(mapPath, (map) => {
    [mtimeNs, ctimeNs, blocks].forEach((value, i) => void map.writeBigInt64LE(value, 104 + 8 * i));
    map.writeUInt32LE(0, 128);
    const check = crc32c(Buffer.concat([map.subarray(0, 132), map.subarray(256)]));
    map.writeUInt32LE(check, 128);
  });
}

test("a bit that rotted on the disk is found by verifying all, and only so", async () => {
  const believing = await reopened(rot);
  expect(believing.isPresent(3)).toBe(true);
  expect(await believing.prove()).toBe(0);
  await believing.release();
  const verifying = LayerBlob.open({ ...bench.paths("layer"), verify: "all" });
  expect(await proved(verifying)).toEqual([1, 1]);
});

test("a cache file that was cut, or cut and extended, loses what was in the end that is gone", async () => {
  for (const [cut, extended, left] of [
    [3 * 65_536, false, 1],
    [3 * 65_536, true, 1],
    [0, true, 0],
  ] as const) {
    const blob = await reopened(({ cachePath }) => {
      truncateSync(cachePath, cut);
      if (extended) truncateSync(cachePath, layer.blobSize);
    });
    expect((await proved(blob))[1]).toBe(left);
    for (const suffix of ["blob", "map"]) rmSync(bench.path(`layer.${suffix}`));
  }
});

test("a map that is cut while it is in use kills nothing, and is whole again at the end", async () => {
  const blob = bench.open(layer);
  await fillSpans(blob, layer, 0);
  truncateSync(bench.path("layer.map"), 0);
  await fillSpans(blob, layer, 1, 2);
  await blob.release();
  const again = bench.open(layer);
  expect(again.presentCount()).toBe(3);
  await again.release();
});

test("bytes in the holes between files are found, and taken out", async () => {
  const tar = patterned(40_000);
  const sparse: TestLayer = {
    ...plainLayer(tar, 20_000),
    blobSize: 1 << 20,
    extents: [
      { tarOffset: 512, blobOffset: 0, length: 100 },
      { tarOffset: 1_000, blobOffset: 4096, length: 15_000 },
      { tarOffset: 21_000, blobOffset: 600_000, length: 500 },
      { tarOffset: 22_000, blobOffset: 900_000, length: 18_000 },
    ],
    spans: [0, 600_000].map((blobOffset, i) => ({
      compOffset: i * 20_000,
      compLength: 20_000,
      tarOffset: i * 20_000,
      tarLength: 20_000,
      blobOffset,
    })),
  };
  for (const at of [200, 25_000, 700_000, 1_000_000]) {
    const first = bench.open(sparse);
    await fillSpans(first, sparse, 0, 1);
    await first.release();
    writeInto(bench.path("layer.blob"), at, Buffer.of(9));
    const second = bench.open(sparse);
    expect(await second.prove()).toBeGreaterThan(0);
    await fillSpans(second, sparse, 0, 1);
    await second.release();
    expect(readFileSync(bench.path("layer.blob")).equals(blobOf(sparse))).toBe(true);
  }
});

test("proving goes through hundreds of spans on several threads", async () => {
  const large = plainLayer(patterned(2_000_000), 5_000);
  const first = bench.open(large);
  await fillSpans(first, large, 0, 399);
  await first.release();
  for (let span = 0; span < 400; span += 7)
    writeInto(bench.path("layer.blob"), span * 5_000, Buffer.alloc(4));
  const second = bench.open(large);
  expect(second.complete).toBe(false);
  expect(await second.prove()).toBe(58);
  expect(second.presentCount()).toBe(342);
  await second.release();
});

test("nothing is found of a cache file that was deleted, whatever the map says of the new one", async () => {
  // The new file may get the inode of the old one.
  const blob = await reopened(({ cachePath }) => rmSync(cachePath));
  await blob.prove();
  expect(blob.presentCount()).toBe(0);
  await blob.release();
});

test("a cache file that cannot be the map's is replaced, not cut: who reads it keeps what it has", async () => {
  const first = bench.open(layer);
  await fillSpans(first, layer, 0, 4);
  await first.release();
  const reader = openSync(bench.path("layer.blob"), "r");
  rmSync(bench.path("layer.map"));
  const second = bench.open(layer);
  expect(second.presentCount()).toBe(0);
  expect(readFileSync(reader).equals(blobOf(layer))).toBe(true);
  closeSync(reader);
  await second.release();
});
